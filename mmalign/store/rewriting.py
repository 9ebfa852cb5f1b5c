"""Items with other embeddings: a new dataset beside the old one, in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import lance
import numpy as np
import pyarrow as pa

from mmalign.store.batches import Float16Array
from mmalign.store.checksums import CHECKSUM_FIELDS, with_checksums
from mmalign.store.item_columns import base_schema
from mmalign.store.lance_store import Store
from mmalign.store.location import Location
from mmalign.store.sizes import new_size_fields
from mmalign.utils import storage_errors

# Rows that are held in memory at once.
_ROWS = 16_384


def rewrite(
    source: Store,
    path: Path | Location,
    *,
    dim: int,
    renew: Callable[[pa.Table], tuple[pa.Table, Float16Array]],
    sizes: Mapping[str, str] = MappingProxyType({}),
) -> Store:
    """Write a dataset with the items of another one, each with a new embedding.

    Args:
        source: The items, at the version to copy.
        path: Where the new dataset goes; nothing may be there.
        dim: Width of the new embeddings.
        renew: Called with consecutive items, without their embeddings; gives those to write, in the same columns, and
            float16 embeddings of shape (len(items), dim). It may leave items out and change their values.
        sizes: The names of sizes for which there must be columns, and their types; `renew` is given them, too.

    Returns:
        The new store. Items keep their order; row ids are new.

    Raises:
        DamagedError: An item is not what was written.
        StorageError: The disk refused.
    """
    # Damage must not get a checksum that fits it.
    source.verify(most=None)
    embedding = base_schema(dim).field("embedding")
    # Field by field: the metadata of `id` tells Lance that it is the key.
    fields = [embedding if field.name == "embedding" else field for field in source.dataset.schema]
    fields += [field for field in CHECKSUM_FIELDS if field.name not in source.dataset.schema.names]
    added = new_size_fields(sizes, source.dataset.schema)
    schema = pa.schema([*fields, *added])
    names = [name for name in source.dataset.schema.names if name != "embedding"]

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in source.dataset.to_batches(columns=names, batch_size=_ROWS):
            items = pa.Table.from_batches([batch])
            for field in added:
                items = items.append_column(field, pa.nulls(items.num_rows, field.type))
            table, vectors = renew(items)
            matrix = np.ascontiguousarray(vectors, dtype=np.float16)
            flat = pa.array(matrix.ravel())
            table = with_checksums(table, matrix)
            table = table.append_column(embedding, pa.FixedSizeListArray.from_arrays(flat, dim))
            yield from table.select(schema.names).cast(schema).to_batches()

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    place = str(Location.of(path))
    with storage_errors(place):
        return Store.written(lance.write_dataset(reader, place, mode="create", enable_stable_row_ids=True))
