"""The table of a view, compared with what it should hold and brought in line with it.

Who reads or writes the table goes through `ViewTable`, which knows how collections of formats 1 and 2 keep their
captions, `captions.lance`: as a store of items in which `uri` is the id of the item and `captions` holds the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.collection.item_schema import item_schema
from mmalign.encoders import Encoder
from mmalign.errors import CollectionFormatError
from mmalign.store import Store, view_schema
from mmalign.types import Box, Part
from mmalign.utils import Float32Array, Int64Array, track

if TYPE_CHECKING:
    import pyarrow as pa

# One commit: some ten seconds of encoding, which is what a power cut can cost.
CHUNK = 4096
_PART = ("start_s", "end_s", "box", "page")


class ViewTable:
    """Rows that each say something about an item or a part of it, with their embeddings.

    Args:
        store: The rows.
        earlier: Whether they are kept as formats 1 and 2 keep captions.

    Attributes:
        store: As given.
    """

    def __init__(self, store: Store, *, earlier: bool) -> None:
        self.store = store
        self._earlier = earlier

    @classmethod
    def create(cls, path: Path, *, dim: int, earlier: bool) -> ViewTable:
        """Make an empty table, also in the place of one that is there.

        Args:
            path: The dataset's folder.
            dim: Width of an embedding.
            earlier: As for the class.

        Returns:
            The table.

        Raises:
            StorageError: The disk refused.
        """
        schema = item_schema if earlier else view_schema
        return cls(Store.create(path, dim=dim, overwrite=path.exists(), schema=schema), earlier=earlier)

    @classmethod
    def open(cls, path: Path, *, earlier: bool) -> ViewTable | None:
        """Open a table.

        Args:
            path: The dataset's folder.
            earlier: As for the class.

        Returns:
            The table; None where there is none, or none that is one.

        Raises:
            StorageError: The disk refused.
        """
        if not path.exists():
            return None
        try:
            return cls(Store.open(path) if earlier else Store.open(path, schema=view_schema), earlier=earlier)
        except CollectionFormatError:
            return None

    def contents(self) -> tuple[Int64Array, pa.Array, pa.Array]:
        """Read which items the rows are about and what they say, unchecked.

        Returns:
            `(row_ids, items, texts)` of n rows; the text is null where a row holds no single one.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self._earlier:
            row_ids, table = self.store.scan(["item", "text"], check=False)
            return row_ids, *(column.combine_chunks() for column in table.columns)
        row_ids, table = self.store.scan(["uri", "captions"], check=False)
        items, lists = (column.combine_chunks() for column in table.columns)
        single = numbers(pc.list_value_length(lists)) == 1
        # Where each of these stands among the texts of all of these.
        places = pa.array(np.cumsum(single) - 1, mask=~single)
        return row_ids, items, pc.list_flatten(lists.filter(pa.array(single))).take(places)

    def texts_and_parts(self, row_ids: Int64Array) -> list[tuple[str, Part | None]]:
        """Read what rows say, and of which parts of their items.

        Args:
            row_ids: Of n rows.

        Returns:
            n times text and part, None for the whole item.

        Raises:
            DamagedError: A row is not what was written.
        """
        if self._earlier:
            captions = self.store.take(row_ids, ["captions"]).column("captions").to_pylist()
            return [(text, None) for (text,) in captions]
        columns = [column.to_pylist() for column in self.store.take(row_ids, ["text", *_PART]).columns]
        return [(text, _part(*bounds)) for text, *bounds in zip(*columns, strict=True)]

    def write(self, rows: Sequence[tuple[str, str]], vectors: Float32Array) -> None:
        """Add rows in one commit, in the place of those that say the same of the same item.

        Args:
            rows: n times id of an item and text.
            vectors: Shape (n, dim).

        Raises:
            StorageError: The disk refused.
        """
        self.store.upsert([self._row(item, text) for item, text in rows], vectors)

    def _row(self, item: str, text: str) -> dict[str, Any]:
        name = hashlib.blake2b(f"{item}\n{text}".encode(), digest_size=12).hexdigest()
        if self._earlier:
            return {"id": name, "uri": item, "kind": "caption", "captions": [text]}
        return {"id": name, "item": item, "text": text}


def _part(start_s: float | None, end_s: float | None, box: list[float] | None, page: int | None) -> Part | None:
    if start_s is None and end_s is None and box is None and page is None:
        return None
    return Part(start_s, end_s, None if box is None else Box(*box), page)


@dataclass(frozen=True, slots=True, eq=False)
class DesiredRows:
    """The rows that a view should hold, in columns: n of them, each once an item.

    Attributes:
        ids: Ids of the items that have some.
        row_ids: Their row ids, int64.
        texts: The different texts.
        item: Place in `ids` of each row, int64 of shape (n,).
        text: Place in `texts` of each, int64 of shape (n,).
    """

    ids: pa.Array
    row_ids: Int64Array
    texts: pa.Array
    item: Int64Array
    text: Int64Array

    @property
    def code(self) -> Int64Array:
        """One number for each row: the same for the same text of the same item."""
        return self.item * max(len(self.texts), 1) + self.text

    def of(self, chosen: Int64Array) -> list[tuple[str, str]]:
        """Item and text of some rows, by their places."""
        import pyarrow as pa

        names = self.ids.take(pa.array(self.item[chosen])).to_pylist()
        return list(zip(names, self.texts.take(pa.array(self.text[chosen])).to_pylist(), strict=True))


def captions_of(items: Store) -> DesiredRows:
    """What the view `captions` should hold: each caption of each item once.

    Args:
        items: The items.

    Returns:
        Item and text of each.

    Raises:
        DamagedError: An item is not what was written.
    """
    import pyarrow.compute as pc

    row_ids, table = items.scan(["id", "captions"], also="captions IS NOT NULL")
    column = table.column("captions").combine_chunks()
    encoded = pc.dictionary_encode(pc.list_flatten(column))
    encoded = encoded.combine_chunks() if hasattr(encoded, "combine_chunks") else encoded
    codes = np.stack([numbers(pc.list_parent_indices(column)), numbers(encoded.indices)])
    # A null among the captions has no place, and says nothing.
    item, text = np.unique(codes[:, codes[1] >= 0], axis=1)
    return DesiredRows(table.column("id").combine_chunks(), row_ids, encoded.dictionary, item, text)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """How a table stands to the rows that are wanted.

    Attributes:
        row_ids: Its rows that are wanted, rising, int64 of shape (n,).
        owners: Row id of the item of each, int64 of shape (n,).
        stale: Row ids that no item has, or that hold what another row holds.
        missing: Places of wanted rows that it lacks.
    """

    row_ids: Int64Array
    owners: Int64Array
    stale: Int64Array
    missing: Int64Array

    @property
    def in_line(self) -> bool:
        """Whether the table holds what is wanted and nothing else."""
        return not len(self.stale) and not len(self.missing)


def compare_rows(table: ViewTable | None, wanted: DesiredRows) -> Comparison:
    """Say how a table stands to the rows that are wanted; what is damaged in it is none of them.

    Args:
        table: The table, or None.
        wanted: The rows.

    Returns:
        The comparison.

    Raises:
        StorageError: The table cannot be read.
    """
    import pyarrow.compute as pc

    code = wanted.code
    if table is None:
        nothing = np.zeros(0, np.int64)
        return Comparison(nothing, nothing, nothing, np.arange(len(code)))
    # What is damaged is no row of any item, and so is made anew.
    damaged = [one.row_id for one in table.store.find_damage()]
    row_ids, items, texts = table.contents()
    item = numbers(pc.index_in(items, value_set=wanted.ids))
    text = numbers(pc.index_in(texts, value_set=wanted.texts))
    held = np.where((item >= 0) & (text >= 0), item * max(len(wanted.texts), 1) + text, -1)
    held[np.isin(row_ids, damaged)] = -1
    valid = np.isin(held, code)
    first = np.zeros(len(held), np.bool_)
    first[np.unique(held, return_index=True)[1]] = True
    valid &= first
    order = np.argsort(row_ids[valid], kind="stable")
    return Comparison(
        row_ids=row_ids[valid][order],
        owners=wanted.row_ids[item[valid]][order],
        stale=row_ids[~valid],
        missing=np.flatnonzero(~np.isin(code, held)),
    )


def bring_in_line(
    table: ViewTable,
    wanted: DesiredRows,
    look: Comparison,
    encoder: Callable[[], Encoder],
    *,
    name: str,
    progress: bool,
) -> None:
    """Delete the rows that are stale and write those that are missing.

    Args:
        table: The table.
        wanted: The rows that it should hold.
        look: How it stands to them.
        encoder: Gives the encoder; called only where a text must be encoded.
        name: Of the view, for the progress bar.
        progress: Whether to show one.

    Raises:
        StorageError: The disk refused; what was committed is kept.
    """
    table.store.delete(look.stale)
    with track(name.capitalize(), len(look.missing), enabled=progress and bool(len(look.missing))) as advance:
        for start in range(0, len(look.missing), CHUNK):
            chunk = wanted.of(look.missing[start : start + CHUNK])
            table.write(chunk, encoder().encode_text([text for _, text in chunk]))
            advance(len(chunk))
    table.store.compact()


def numbers(values: Any) -> Int64Array:
    """Arrow integers as int64.

    Args:
        values: An Arrow array of integers.

    Returns:
        The same, with -1 for null.
    """
    import pyarrow.compute as pc

    found: Int64Array = pc.fill_null(pc.cast(values, "int64"), -1).to_numpy(zero_copy_only=False)
    return found
