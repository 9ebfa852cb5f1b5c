"""Which column of a Parquet file holds pictures, told by what its schema and its first bytes say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmalign.media.formats import sniff
from mmalign.media.rows import PATH_COLUMNS

_LOOKED_AT = 64
_HEAD_BYTES = 256


@dataclass(frozen=True, slots=True)
class PictureColumn:
    """A column of stored pictures.

    Attributes:
        name: The column.
        many: Whether its cells are lists of pictures.
        bytes_leaf: Parquet's path of the column of bytes.
        path_leaf: Parquet's path of the column of paths that is stored beside the bytes; None where there is none.
    """

    name: str
    many: bool
    bytes_leaf: str
    path_leaf: str | None


def holds_bytes(kind: Any) -> bool:
    """Whether an Arrow type holds bytes, somewhere inside.

    Args:
        kind: The type.

    Returns:
        True for binary types, and for structs and lists of them.
    """
    return _is_bytes(kind) or any(holds_bytes(kind.field(at).type) for at in range(kind.num_fields))


def picture_columns(file: Any, features: Mapping[str, Any]) -> list[PictureColumn]:
    """The columns of pictures, the one to read first.

    A column of bytes counts as one where Hugging Face's metadata says so, or where one of its first cells begins as
    a picture does.

    Args:
        file: An open `pyarrow.parquet.ParquetFile`.
        features: Hugging Face's description of the columns by name; empty where the file has none.

    Returns:
        The columns, those first whose names `PATH_COLUMNS` holds.
    """
    schema = file.metadata.schema
    leaves = [schema.column(at).path for at in range(file.metadata.num_columns)]
    found = []
    for field in file.schema_arrow:
        column = _shape(field.name, field.type, leaves)
        if column is None:
            continue
        feature = features.get(field.name)
        declared = isinstance(feature, dict) and feature.get("_type") == "Image"
        if declared or _begins_with_pictures(file, column):
            found.append(column)

    def rank(column: PictureColumn) -> int:
        name = column.name.lower().rpartition(".")[0] or column.name.lower()
        return PATH_COLUMNS.index(name) if name in PATH_COLUMNS else len(PATH_COLUMNS)

    return sorted(found, key=rank)


def _shape(name: str, kind: Any, leaves: list[str]) -> PictureColumn | None:
    from pyarrow import types

    many = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    inner = kind.value_type if many else kind
    own = [leaf for leaf in leaves if leaf == name or leaf.startswith(name + ".")]
    if _is_bytes(inner):
        return PictureColumn(name, many, own[0], None) if own else None
    if not types.is_struct(inner):
        return None
    fields = {inner.field(at).name: inner.field(at).type for at in range(inner.num_fields)}
    if "bytes" not in fields or not _is_bytes(fields["bytes"]):
        return None
    bytes_leaf = next((leaf for leaf in own if leaf.endswith(".bytes")), None)
    path_leaf = next((leaf for leaf in own if leaf.endswith(".path")), None)
    return None if bytes_leaf is None else PictureColumn(name, many, bytes_leaf, path_leaf)


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _begins_with_pictures(file: Any, column: PictureColumn) -> bool:
    seen = 0
    for batch in file.iter_batches(4, columns=[column.bytes_leaf]):
        for cell in batch.column(0):
            for data in _stored(cell.as_py()):
                if sniff(data[:_HEAD_BYTES]):
                    return True
                seen += 1
            if seen >= _LOOKED_AT:
                return False
    return False


def _stored(cell: Any) -> Iterator[bytes]:
    if isinstance(cell, bytes):
        if cell:
            yield cell
    elif isinstance(cell, dict):
        yield from _stored(cell.get("bytes"))
    elif isinstance(cell, list):
        for entry in cell:
            yield from _stored(entry)
