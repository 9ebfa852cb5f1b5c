"""The columns that a new collection's items have: those of every item, and the sizes of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign.media import PICTURES
from mmalign.store import base_schema

if TYPE_CHECKING:
    import pyarrow as pa


def item_schema(dim: int) -> pa.Schema:
    """The columns of a new collection; those for the sizes of other kinds come with their first items.

    Args:
        dim: Width of an embedding.

    Returns:
        An Arrow schema, for `Store.create`.
    """
    return base_schema(dim, sizes=PICTURES.sizes)
