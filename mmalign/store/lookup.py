"""Finding rows: by what a column of keys holds, through its scalar index or by comparing the column, or by row id."""

from __future__ import annotations

from collections.abc import Sequence

import lance
import pyarrow as pa
import pyarrow.compute as pc

from mmalign.utils import Int64Array

# Values that one filter names; more of them take longer to be planned than to be looked up.
_BLOCK = 4096
# In a table of so many rows, so few of them are read through a filter.
_LARGE, _FEW = 65_536, 512
_ROWS = 65_536


def find_rows(
    dataset: lance.LanceDataset,
    column: str,
    values: Sequence[str],
    columns: Sequence[str],
    *,
    indexed: bool,
    fragments: Sequence[lance.LanceFragment] | None = None,
) -> pa.Table:
    """Read the rows of which a text column holds one of some values.

    Args:
        dataset: The items.
        column: The column that is compared; values are compared, never parsed.
        values: Any texts.
        columns: The columns to read.
        indexed: Whether the column has a scalar index that can be relied on. Rows that it lacks are compared.
        fragments: Where to look; None for everywhere.

    Returns:
        The columns and `_rowid` of the rows, in no order.
    """
    wanted = [value for value in dict.fromkeys(values) if _can_be_held(value)]
    blocks = [wanted[start : start + _BLOCK] for start in range(0, len(wanted), _BLOCK)]
    if not blocks:
        kinds = [dataset.schema.field(name) for name in columns]
        return pa.schema([*kinds, pa.field("_rowid", pa.uint64())]).empty_table()
    if len(blocks) > 1 and not indexed:
        return _compared(dataset, column, wanted, columns, fragments)
    return pa.concat_tables(
        dataset.scanner(
            columns=list(columns),
            filter=f"{column} IN ({', '.join(map(_literal, block))})",
            with_row_id=True,
            use_scalar_index=indexed,
            fragments=fragments,
        ).to_table()
        for block in blocks
    )


def is_large(dataset: lance.LanceDataset) -> bool:
    """Whether a table has so many rows that what goes through all of them is to be avoided."""
    return bool(dataset.count_rows() >= _LARGE)


def read_rows(dataset: lance.LanceDataset, row_ids: Int64Array, columns: Sequence[str]) -> pa.Table:
    """Read rows by their row ids.

    Args:
        dataset: The items.
        row_ids: Row ids, each once, shape (n,).
        columns: The columns to read; `_rowaddr` may be among them.

    Returns:
        The columns and `_rowid` of those rows that are there, in no order.
    """
    if not 0 < len(row_ids) <= _FEW or not is_large(dataset):
        return dataset._take_rows(row_ids.tolist(), columns=[*columns, "_rowid"])
    # Lance's way to take rows maps all row ids of a version before it gives the first one; a filter needs no map.
    return dataset.scanner(
        columns=[name for name in columns if name != "_rowaddr"],
        filter=f"_rowid IN ({', '.join(map(str, row_ids.tolist()))})",
        with_row_id=True,
        with_row_address="_rowaddr" in columns,
        use_scalar_index=False,
    ).to_table()


def _compared(
    dataset: lance.LanceDataset,
    column: str,
    wanted: Sequence[str],
    columns: Sequence[str],
    fragments: Sequence[lance.LanceFragment] | None,
) -> pa.Table:
    """Go through the column once, whatever the number of values."""
    value_set = pa.array(wanted, pa.string())
    names = list(dict.fromkeys([column, *columns]))
    scanner = dataset.scanner(
        columns=names,
        with_row_id=True,
        batch_size=_ROWS,
        batch_readahead=2,
        fragments=fragments,
        use_scalar_index=False,
    )
    found = [
        pa.Table.from_batches([batch]).filter(pc.is_in(batch.column(column), value_set=value_set))
        for batch in scanner.to_batches()
    ]
    if not found:
        return find_rows(dataset, column, (), columns, indexed=False)
    return pa.concat_tables(found).select([*columns, "_rowid"]).combine_chunks()


def _literal(value: str) -> str:
    return f"'{value.replace(chr(39), 2 * chr(39))}'"


def _can_be_held(value: str) -> bool:
    """Whether an item, and the text of a filter, can hold a text at all."""
    return "\0" not in value and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))
