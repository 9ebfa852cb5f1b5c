"""Taking items out of a collection, with or without what is left of them on disk, and remembering that they went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.collection.generation import Generation
from mmalign.collection.generation_files import alone_in_writing
from mmalign.collection.reencode import alone_in_reencoding
from mmalign.errors import CollectionError
from mmalign.media import same_uris
from mmalign.store import Removed, Store, readable_values
from mmalign.types import ItemCount


@dataclass(frozen=True, slots=True)
class Removal:
    """Which items are to go; both must hold where both are given.

    Attributes:
        path: The collection.
        names: Ids, URIs or paths; None for any.
        where: SQL over the columns; None for any.
    """

    path: Path
    names: list[str] | None
    where: str | None

    def run(self, store: Store) -> ItemCount:
        """Remove them, and remember that they were.

        Args:
            store: The items, for writing.

        Returns:
            How many were removed; its `unknown` has the names that no item has.
        """
        chosen = None if self.where is None else store.row_ids(where=self.where)
        unknown: list[str] = []
        if self.names is not None:
            row_ids, unknown = store.match(self.names, uris=same_uris)
            if unknown:
                # Unless it is their ids that are damaged.
                store.verify()
            chosen = row_ids if chosen is None else row_ids[np.isin(row_ids, chosen)]
        assert chosen is not None
        # Before they go: an item that is still there counts as one, whatever is remembered of it. What is damaged can
        # be removed, too.
        items = store.take(chosen, ["uri", "sha256"], check=False)
        uris, digests = (readable_values(column.combine_chunks()) for column in items.columns)
        Removed(self.path).remember(zip(uris, digests, strict=True))
        return ItemCount(store.delete(chosen) if len(chosen) else 0, unknown)

    def purge(
        self, current: Callable[[], Generation], writing: Callable[[], AbstractContextManager[Generation]]
    ) -> ItemCount:
        """Remove them so that no byte of them is left in the data, the views and the indexes.

        Args:
            current: Gives the generation in use.
            writing: Gives it while others may write, too.

        Returns:
            As `run`.

        Raises:
            CollectionError: Another process encodes the collection anew, builds an index on disk, or writes for longer
                than a minute.
        """
        with alone_in_reencoding(self.path):
            with alone_in_writing(self.path):
                generation = current()
                if not generation.clear_work():
                    raise CollectionError(
                        f"an index of {self.path} is being built from the items as they were; wait for that process, "
                        "and purge then"
                    )
                removed = self.run(generation.writer())
                generation.purge()
            with writing() as generation:
                generation.purge_index()
        return removed
