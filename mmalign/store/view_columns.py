"""The columns of a view's table: what part of which item a row is about, what it says, and its embedding."""

from __future__ import annotations

import pyarrow as pa

from mmalign.store.checksums import CHECKSUM_FIELDS
from mmalign.store.item_columns import PRIMARY_KEY


def view_schema(dim: int) -> pa.Schema:
    """The columns of a view's table, for `Store.create` and `Store.open`.

    Args:
        dim: Width of an embedding.

    Returns:
        An Arrow schema. `id` is made of what the row is about; `item` is the id of the item; `start_s`, `end_s`, `box`
        (left, top, width and height) and `page` say which part of it, all null for the whole; `text` is what it says.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=PRIMARY_KEY),
            pa.field("item", pa.string()),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("box", pa.list_(pa.float64())),
            pa.field("page", pa.int32()),
            pa.field("text", pa.string()),
            pa.field("embedding", pa.list_(pa.float16(), dim)),
            *CHECKSUM_FIELDS,
        ]
    )
