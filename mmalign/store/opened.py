"""A table at one version: what it is, which other versions there are, and whether it is what was written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import lance
import pyarrow as pa

from mmalign.errors import DamagedError, StorageError
from mmalign.store.compaction import reads_long
from mmalign.store.filter_cache import FilterCache
from mmalign.store.item_columns import base_schema
from mmalign.store.names import renamed_columns
from mmalign.store.sizes import size_columns
from mmalign.store.verifying import Damage, check_all, find_damage
from mmalign.store.version_checksums import check_version
from mmalign.utils import storage_errors

# In a collection of more items, those that a search finds are checked, and not all before its filter is asked.
_MOST_CHECKED = 262_144
# What it keeps for itself, beside its checksums.
_KEPT = frozenset({"embedding", "said"})
# What Lance keeps of indexes, and of what it knows of files; by itself it would take gigabytes.
_CACHED = 256 << 20
# Entries of the dataset's configuration that name the indexes built from it.
MARK = "mmalign:index:"


class OpenedTable:
    """A table at the version at which it was opened or that it last wrote.

    Args:
        dataset: The open Lance dataset.
    """

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset
        self._opened = int(dataset.version)
        # Whether each row was compared with its checksum, or has been found to be right before.
        self._checked = False
        self._is_alone = False
        self._passed_over: frozenset[int] = frozenset()
        self._filters = FilterCache()

    def at(self, version: int) -> Self | None:
        """Return the store at an earlier version, or None where that was cleaned away or cannot be relied on any more.

        Args:
            version: Of the dataset.
        """
        try:
            with storage_errors(self._dataset.uri, reading=True):
                dataset = open_dataset(self._dataset.uri, version)
                # Which rows it had is compared with which there are now: damage would show items as old or as gone.
                check_version(dataset)
        except (StorageError, DamagedError):
            return None
        earlier = type(self)(dataset)
        earlier.pass_over(self._passed_over)
        return earlier

    def latest(self) -> Self:
        """Return this store at its newest committed version: itself where nothing has changed since.

        Raises:
            StorageError: The items cannot be read.
        """
        try:
            if self._dataset.latest_version == self._dataset.version:
                return self
        except BaseException:
            # Entered only where it is needed: each search comes by here.
            with storage_errors(self._dataset.uri, reading=True):
                raise
        with storage_errors(self._dataset.uri, reading=True):
            dataset = open_dataset(self._dataset.uri)
            checked_names(dataset)
        return type(self)(dataset)

    @property
    def dataset(self) -> lance.LanceDataset:
        """The dataset itself, at the version that reads see; for the modules of this room."""
        return self._dataset

    @property
    def version(self) -> int:
        """The dataset version that reads see."""
        return int(self._dataset.version)

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return int(self._dataset.schema.field("embedding").type.list_size)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The metadata columns beyond those that every item has, by name."""
        base = {*base_schema(1).names, *self.sizes.values()}
        return {field.name: field.type for field in self._dataset.schema if field.name not in base}

    @property
    def sizes(self) -> dict[str, str]:
        """The columns that say how large items are, by the names of the sizes; see `mmalign.store.sizes`."""
        return size_columns(self._dataset.schema)

    @property
    def renamed(self) -> dict[str, str]:
        """The columns that are kept under another name than was given: the given name to the column."""
        return renamed_columns(self._dataset.schema)

    def __len__(self) -> int:
        with storage_errors(self._dataset.uri, reading=True):
            return int(self._dataset.count_rows())

    @property
    def readable(self) -> list[str]:
        """The columns that callers may read, in the order of the dataset: those of every item, then metadata.

        The embedding is not among them, though `iter_rows` reads it.
        """
        return [name for name in self._dataset.schema.names if name not in _KEPT and not name.startswith("_")]

    def schema_of(self, columns: Sequence[str]) -> pa.Schema:
        """Names and types of columns, as `iter_rows` gives them."""
        return pa.schema([(name, self._dataset.schema.field(name).type) for name in columns])

    def is_marked(self, name: str) -> bool:
        """Whether these items are what `mark` gave this name to, or have become of them.

        Args:
            name: What `mark` returned.
        """
        return f"{MARK}{name}" in self._dataset.config()

    @contextmanager
    def reads_long(self) -> Iterator[None]:
        """Keep this version from being cleaned away by other writers while the block runs."""
        with reads_long(self._dataset):
            yield

    def pass_over(self, fragments: Collection[int]) -> None:
        """Leave fragments out of what is read from now on, since their columns cannot be read.

        Args:
            fragments: Their ids.
        """
        self._passed_over = frozenset(fragments)

    @property
    def _state(self) -> tuple[lance.LanceDataset, int, frozenset[int]]:
        """What answers to filters depend on, beside their texts; writing through a dataset changes its version."""
        return self._dataset, self._dataset.version, self._passed_over

    @property
    def _fragments(self) -> list[lance.LanceFragment] | None:
        """Where to read; None for everywhere."""
        if not self._passed_over:
            return None
        return [one for one in self._dataset.get_fragments() if one.fragment_id not in self._passed_over]

    def verify(self, *, most: int | None = _MOST_CHECKED) -> None:
        """Compare all rows with their checksums, embeddings excepted, where that was not done before.

        Args:
            most: Do nothing where there are more rows; None to do it always.

        Raises:
            DamagedError: One is not what was written.
            StorageError: The items cannot be read.
        """
        if self._checked or (most is not None and len(self) > most):
            return
        with storage_errors(self._dataset.uri, reading=True):
            check_all(self._dataset)
        self._checked = True

    def find_damage(self, *, again: bool = False) -> Iterator[Damage]:
        """Compare all rows and embeddings with their checksums.

        Args:
            again: Whether to read, too, what this process has found to be right before.

        Yields:
            The rows that are not what was written.

        Raises:
            StorageError: The items cannot be read.
        """
        with storage_errors(self._dataset.uri, reading=True):
            yield from find_damage(self._dataset, again=again)


def open_dataset(path: str, version: int | None = None) -> lance.LanceDataset:
    """Open a dataset at a version, or at its newest one, with caches of mmalign's sizes."""
    return lance.dataset(path, version=version, index_cache_size_bytes=_CACHED, metadata_cache_size_bytes=_CACHED)


def checked_names(dataset: lance.LanceDataset) -> list[str]:
    """The columns of a dataset that was just opened, once its manifest was compared with its checksum."""
    # Before anything else is asked: a damaged manifest makes Lance panic, also one that has no checksum.
    check_version(dataset)
    return list(dataset.schema.names)
