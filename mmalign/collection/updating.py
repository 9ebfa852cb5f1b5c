"""What users set of items: values of their columns, and columns that are to be text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmalign.collection.vector_rows import caption_texts, plain_metadata
from mmalign.errors import MetadataError
from mmalign.store import Store, keep_for_user
from mmalign.types import ItemCount


@dataclass(frozen=True, slots=True)
class Update:
    """Values that some items are to get.

    Attributes:
        names: Ids of the items.
        values: By column, beside captions.
        fixed: The captions, where they are set.
    """

    names: list[str]
    values: dict[str, Any]
    fixed: dict[str, Any]

    @classmethod
    def of(cls, names: list[str], metadata: Mapping[str, Any]) -> Update:
        """Check what a caller gives.

        Raises:
            MetadataError: A value that cannot be kept, or none at all.
        """
        values = plain_metadata(metadata)
        if not values:
            raise MetadataError("no metadata given; nothing to update")
        fixed = {"captions": caption_texts(values.pop("captions"))} if "captions" in values else {}
        return cls(names, values, fixed)

    def run(self, store: Store) -> ItemCount:
        """Set the values; from now on they are the user's, and no source changes them.

        Args:
            store: The items, for writing.

        Returns:
            How many items were changed; its `unknown` has the ids that no item has.

        Raises:
            MetadataError: A value that its column cannot hold exactly; nothing was changed.
        """
        with store.alone():
            row_ids, unknown = store.match(self.names)
            if unknown:
                # Unless it is their ids that are damaged.
                store.verify()
            if not len(row_ids):
                store.plan([self.values], strict=lambda _: "update")
                return ItemCount(0, unknown)
            store.check(self.fixed)
            version = store.version
            settled = store.settle([self.values], strict=lambda _: "update")
            set_now = {**self.fixed, **settled.rows[0]}
            if store.version != version:
                # Some may have been removed before there were the columns.
                row_ids, unknown = store.match(self.names)
            changed = store.edit(
                row_ids, ["said"], lambda row: {**set_now, "said": keep_for_user(row["said"], set_now)}
            )
        store.compact()
        return ItemCount(changed, unknown)


def turn_into_text(store: Store, columns: Sequence[str]) -> None:
    """Turn metadata columns into text; what they hold stays, spelled out.

    Args:
        store: The items, for writing.
        columns: Names of columns, as they are kept or as a source gave them.

    Raises:
        MetadataError: There is no such column.
    """
    known = {*store.columns, *store.renamed}
    for name in columns:
        if name not in known:
            raise MetadataError(f"no column is called {name!r}; columns here: {', '.join(store.columns) or 'none'}")
    store.settle([], as_text=columns)
