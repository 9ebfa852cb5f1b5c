"""Columns that say how large an item is: those of the kinds that a collection holds, null for items of other kinds.

A size's column has the size's name, unless that is taken, by metadata say; then it gets one by the rule for names of
metadata. The size that a column holds is kept with the column. Earlier versions wrote `width` and `height` without.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from mmalign.store.names import SIZE, free_name

_UNMARKED = ("width", "height")


def size_columns(schema: pa.Schema) -> dict[str, str]:
    """Return the columns that hold sizes, by the names of the sizes, in the order of the columns."""
    found = {}
    for field in schema:
        marked = (field.metadata or {}).get(SIZE)
        if marked is not None:
            found[marked.decode()] = field.name
        elif field.name in _UNMARKED:
            found[field.name] = field.name
    return found


def new_size_fields(sizes: Mapping[str, str], schema: pa.Schema) -> list[pa.Field]:
    """Return the columns that sizes lack.

    Args:
        sizes: The name of each, and its type by Arrow's name for it, such as `int32`.
        schema: The columns that there are.

    Returns:
        Fields that may be null, each marked with its size.
    """
    known, taken = size_columns(schema), list(schema.names)
    fields = []
    for name, kind in sizes.items():
        if name not in known:
            taken.append(free_name(name, taken))
            fields.append(pa.field(taken[-1], pa.type_for_alias(kind), metadata={SIZE: name.encode()}))
    return fields
