"""Items and embeddings in one Lance dataset: atomic commits, versions, deletes, upserts and SQL filters."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from mmalign.errors import CollectionFormatError, StorageError
from mmalign.store.checksums import CHECKSUM, EMBEDDING_CHECKSUM
from mmalign.store.column_changes import CONFLICT_RETRIES
from mmalign.store.compaction import MOST_FRAGMENTS, clean_versions, purge_versions, worn_fragments
from mmalign.store.item_columns import base_schema
from mmalign.store.location import Location
from mmalign.store.opened import MARK, checked_names, open_dataset
from mmalign.store.row_changes import WrittenTable
from mmalign.store.scalar_indexes import keep_up, remake
from mmalign.utils import first_line, storage_errors

# Of the marks of indexes, the newest are kept.
_MARKS_KEPT = 8


class Store(WrittenTable):
    """One row an item, addressed by `id` (the caller's key) and by row id (stable for the row's life).

    Args:
        dataset: The open Lance dataset.

    A store sees the version it was opened at or last wrote; `latest` opens the newest one.

    It is a folder of this machine, or lies in an object store (`s3://BUCKET/KEY`; see `Location`). There nothing locks:
    only one process may write at a time, and who reads an earlier version while another process writes may find it
    cleaned away after an hour. Rows and embeddings have their checksums as elsewhere; a version's manifest, deletion
    files and scalar indexes have none.
    """

    @classmethod
    def create(
        cls,
        path: Path | Location,
        *,
        dim: int,
        schema: Callable[[int], pa.Schema] = base_schema,
        overwrite: bool = False,
    ) -> Store:
        """Create an empty store.

        Args:
            path: The dataset's folder, on this machine or in an object store.
            dim: Width of an embedding.
            schema: Gives its columns for that width: those of items, or `view_schema`.
            overwrite: Replace what is there; otherwise nothing may be.

        Returns:
            The store.

        Raises:
            StorageError: The disk or the object store refused.
        """
        place = str(Location.of(path))
        with storage_errors(place):
            dataset = lance.write_dataset(
                schema(dim).empty_table(),
                place,
                mode="overwrite" if overwrite else "create",
                enable_stable_row_ids=True,
            )
        return cls.written(dataset)

    @classmethod
    def written(cls, dataset: lance.LanceDataset) -> Store:
        """The store of a dataset that was just written."""
        store = cls(dataset)
        store._committed()
        return store

    @classmethod
    def open(cls, path: Path | Location, *, schema: Callable[[int], pa.Schema] = base_schema) -> Store:
        """Open a store at its newest version.

        Args:
            path: The dataset's folder, on this machine or in an object store.
            schema: As for `create`; the columns that must be there.

        Returns:
            The store.

        Raises:
            CollectionFormatError: There is no readable dataset.
        """
        place = str(Location.of(path))
        try:
            with storage_errors(place, reading=True):
                dataset = open_dataset(place)
                names = checked_names(dataset)
        except StorageError as error:
            reason = first_line(error.__cause__ or error)
            raise CollectionFormatError(f"{path} is not a readable item store: {reason}") from error
        # Earlier versions wrote no checksums.
        wanted = [name for name in schema(1).names if name not in (EMBEDDING_CHECKSUM, CHECKSUM)]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise CollectionFormatError(f"{path} lacks the columns {', '.join(missing)}; was it written by mmalign?")
        return cls(dataset)

    def mark(self) -> str:
        """Commit that an index is built from the items, so that later versions of them are known by it.

        Returns:
            A random name, which `is_marked` of these items and of what becomes of them knows.

        Raises:
            StorageError: The disk refused.
        """
        name = secrets.token_hex(8)
        with storage_errors(self._dataset.uri):
            # A handle of its own: these items stay at the version that the index is built from.
            dataset = open_dataset(self._dataset.uri)
            known = {key: value for key, value in dataset.config().items() if key.startswith(MARK)}
            oldest = sorted(known, key=lambda key: int(known[key]))[: max(0, len(known) + 1 - _MARKS_KEPT)]
            dataset.update_config({MARK + name: str(dataset.version)} | dict.fromkeys(oldest))
            Store.written(dataset)
        return name

    def compact(self, *, force: bool = False) -> None:
        """Merge the small fragments that many commits leave, and drop earlier versions; see `compaction`.

        Most calls do nothing: it is done once in 16 versions.

        Args:
            force: Do it now, and merge all fragments that can be.

        Raises:
            StorageError: The disk refused.
        """
        self.keep_indexes()
        with storage_errors(self._dataset.uri):
            if not force and self._opened // MOST_FRAGMENTS == self.version // MOST_FRAGMENTS:
                return
            # Without luck between two writers it is left to the next time: nothing depends on it.
            try:
                if self._rewrite(None if force else worn_fragments):
                    clean_versions(self._dataset)
            except (OSError, ValueError) as error:
                if "Not found" not in str(error) or not self._is_there():
                    raise
                # Another writer has cleaned this version away meanwhile, and merged what there was to merge.
                self._dataset = open_dataset(self._dataset.uri)
            self._opened = self.version

    def _is_there(self) -> bool:
        """Whether there is a newer version, and so what was not found is no damage of the folder."""
        return bool(self._dataset.latest_version > self._dataset.version)

    def keep_indexes(self) -> None:
        """Make the scalar indexes by which items are looked up, where they are worthwhile, or bring them up to date.

        Raises:
            StorageError: The disk refused.
        """
        with storage_errors(self._dataset.uri):
            try:
                if keep_up(self._dataset):
                    self._committed()
            except (OSError, ValueError):
                # Without luck between two writers, or with a column that cannot be read, it is left to the next time:
                # nothing depends on it.
                self._dataset = open_dataset(self._dataset.uri)

    def purge(self) -> None:
        """Rewrite the data without deleted rows and drop every older version, so that no byte of them is left.

        Nobody else may write meanwhile.

        Raises:
            StorageError: The disk refused.
        """
        with storage_errors(self._dataset.uri):
            if not self._rewrite(materialize_deletions=True, materialize_deletions_threshold=0.0):
                raise StorageError(
                    f"{self._dataset.uri} cannot be purged while other processes write to it; stop them and run the "
                    "same again"
                )
            # They hold the keys of rows that are gone, too.
            remake(self._dataset)
            self._committed()
            purge_versions(self._dataset)

    def _rewrite(self, choose: Callable[[lance.LanceDataset], Collection[int]] | None = None, **options: Any) -> bool:
        """Merge fragments; what another process writes to them meanwhile comes first, and then it is tried again.

        Args:
            choose: Gives the ids of the fragments to merge; None for all that Lance finds worth it.
            options: For Lance's `compact_files`.

        Returns:
            Whether it was done; False where others wrote each time.
        """
        for _ in range(CONFLICT_RETRIES):
            left: list[int] = []
            if choose is not None:
                chosen = set(choose(self._dataset)) - self._passed_over
                if not chosen:
                    return True
                names = [fragment.fragment_id for fragment in self._dataset.get_fragments()]
                left = [name for name in names if name not in chosen]
            try:
                self._dataset.optimize.compact_files(excluded_fragment_ids=left, **options)
            except OSError as error:
                if "commit conflict" not in str(error):
                    raise
                self._dataset = open_dataset(self._dataset.uri)
            else:
                self._committed()
                return True
        return False
