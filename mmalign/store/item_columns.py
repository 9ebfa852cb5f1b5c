"""The columns that every item has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

from mmalign.store.checksums import CHECKSUM_FIELDS
from mmalign.store.sizes import new_size_fields

# Concurrent upserts of one id leave duplicates unless Lance knows which column is the key.
PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}


def base_schema(dim: int, *, sizes: Mapping[str, str] = MappingProxyType({})) -> pa.Schema:
    """The columns that every item has.

    Args:
        dim: Width of an embedding.
        sizes: The names of sizes for which there are columns from the beginning, and their types; see
            `mmalign.store.sizes`.

    Returns:
        An Arrow schema. `said` tells who gave which captions and metadata; for the checksums see
        `mmalign.store.checksums`.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=PRIMARY_KEY),
            pa.field("uri", pa.string()),
            pa.field("sha256", pa.string()),
            pa.field("kind", pa.string()),
            *new_size_fields(sizes, pa.schema([])),
            pa.field("bytes", pa.int64()),
            pa.field("mtime_ns", pa.int64()),
            pa.field("said", pa.string()),
            pa.field("captions", pa.list_(pa.string())),
            pa.field("embedding", pa.list_(pa.float16(), dim)),
            *CHECKSUM_FIELDS,
        ]
    )
