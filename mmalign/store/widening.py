"""Giving columns other types in one commit: row ids stay, readers of earlier versions see what they saw.

Lance's own `alter_columns` changes no integers to floats, and to add a column, drop one and rename one are three
commits: between them the column is missing, and what another process writes to it meanwhile would be lost. Here the new
values are written beside each fragment's files, and one commit puts them in the old column's place. It does not go
through where anything else was committed since the values were read.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import lance
import pyarrow as pa
from lance.schema import LanceSchema
from lance.udf import batch_udf


def recast(
    dataset: lance.LanceDataset,
    fields: Mapping[str, pa.DataType],
    convert: Callable[[pa.Table], Sequence[pa.Array]],
    *,
    columns: Sequence[str],
) -> lance.LanceDataset:
    """Give columns other types and values.

    Args:
        dataset: The dataset, at its newest version.
        fields: The columns, each with its new type.
        convert: Makes arrays of those types, in that order, of some rows.
        columns: What the rows that `convert` is given hold.

    Returns:
        The dataset at the version that has the new types.

    Raises:
        OSError: Another process has committed something meanwhile, or the disk refused.
    """
    new = [pa.field(name, kind, metadata=dataset.schema.field(name).metadata) for name, kind in fields.items()]
    fragments = dataset.get_fragments()
    if not fragments:
        # Nothing is in it, so that nothing is missing in between.
        dataset.drop_columns(list(fields))
        dataset.add_columns(pa.schema(new))
        return dataset
    temporary = [field.with_name(f"_{secrets.token_hex(16)}") for field in new]

    @batch_udf(output_schema=pa.schema(temporary))
    def convert_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch(list(convert(pa.Table.from_batches([batch]))), schema=pa.schema(temporary))

    written = [fragment.merge_columns(convert_batch, columns=list(columns)) for fragment in fragments]
    schema = written[-1][1]
    for field, stand_in in zip(new, temporary, strict=True):
        schema = _replace_field(schema, field.name, stand_in.name)
    made = schema.to_pyarrow()
    if any(made.field(field.name) != field for field in new) or set(made.names) != set(dataset.schema.names):
        raise RuntimeError(f"this version of Lance gives {', '.join(fields)} no other type")
    operation = lance.LanceOperation.Merge([metadata for metadata, _ in written], schema)
    return lance.LanceDataset.commit(dataset.uri, operation, read_version=dataset.version, max_retries=0)


def _replace_field(schema: LanceSchema, name: str, temporary: str) -> LanceSchema:
    """The schema with `temporary` in the place of `name`, and called so.

    Lance knows fields by numbers, which only its own schema carries. That can be pickled, as a message of protocol
    buffers for each field, and so it is taken apart here and put together again.
    """
    make, (metadata, *messages) = cast("tuple[Callable[..., LanceSchema], tuple[Any, ...]]", schema.__reduce__())
    by_number = dict(zip((number for field in schema.fields() for number in _numbers(field)), messages, strict=True))
    fields = {field.name(): field for field in schema.fields()}
    kept: list[bytes] = []
    for field in schema.fields():
        if field.name() == temporary:
            continue
        if field.name() != name:
            kept += [by_number[number] for number in _numbers(field)]
            continue
        first, *inner = [by_number[number] for number in _numbers(fields[temporary])]
        kept += [first.replace(_text_field(temporary), _text_field(name), 1), *inner]
    return make(metadata, *kept)


def _numbers(field: Any) -> list[int]:
    """The numbers of a field and of those within it, in the order in which Lance writes them."""
    return [field.id(), *(number for child in field.children() for number in _numbers(child))]


def _text_field(text: str) -> bytes:
    """The second field of a message of protocol buffers, which holds a name."""
    raw = text.encode()
    length = len(raw)
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return b"\x12" + bytes(varint) + raw
