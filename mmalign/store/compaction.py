"""Merging what many small writes leave: small fragments, rows that are deleted, and earlier versions.

Fragments are merged with others of about their size, as in a log-structured merge tree (O'Neil and others, 1996), so
that a small write never rewrites a large fragment.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import lance

from mmalign.errors import StorageError
from mmalign.store.location import Location
from mmalign.store.version_checksums import clear_versions
from mmalign.utils import lock

MOST_FRAGMENTS = 16
"""How many fragments of one size, and how many versions, may gather before they are merged and cleaned away."""

_SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 20)
_MOST_DELETED = 0.1
# How long earlier versions stay where somebody reads one of them for long.
_KEEP_READ = timedelta(hours=1)
# So many stay in any case: a search that has just begun reads one of them.
_KEEP_NEWEST = 4
_READERS = ".readers.lock"
_ATTEMPTS = 100
# What the tags of Lance are called that keep a version from being cleaned away while it is read.
_READING = "mmalign-reading-"


def worn_fragments(dataset: lance.LanceDataset) -> list[int]:
    """Say which fragments are to be written anew.

    Args:
        dataset: At its newest version.

    Returns:
        Ids of fragments: those of a size of which there are 16, and those of which a tenth is deleted.
    """
    metadata = [fragment.metadata for fragment in dataset.get_fragments()]
    chosen = {one.id for one in metadata if one.num_deletions > _MOST_DELETED * one.physical_rows}
    for least, most in pairwise((0, *_SIZES)):
        alike = {one.id for one in metadata if least <= one.physical_rows - one.num_deletions < most}
        if len(alike) >= MOST_FRAGMENTS:
            chosen |= alike
    return sorted(chosen)


def clean_versions(dataset: lance.LanceDataset) -> None:
    """Drop earlier versions, but for the newest few; where somebody `reads_long`, only those older than an hour.

    A version that is read for long stays, however old it is.

    Args:
        dataset: At its newest version.
    """
    place, cleaned = Location.of(dataset.uri), False
    if place.is_local:
        # No locks on this disk, as in an object store: nobody can be asked.
        with suppress(StorageError), lock(place.path / _READERS, wait=False) as alone:
            if alone:
                _clean(dataset, retain_versions=_KEEP_NEWEST, error_if_tagged_old_versions=False)
                cleaned = True
    if not cleaned:
        _clean(dataset, older_than=_KEEP_READ, error_if_tagged_old_versions=False, forget=False)
    clear_versions(dataset)


def purge_versions(dataset: lance.LanceDataset) -> None:
    """Drop every earlier version, and what a writer that was killed has left and no version names.

    Who still reads one of them reads the newest instead.

    Args:
        dataset: At its newest version.
    """
    _clean(dataset, older_than=timedelta(0), delete_unverified=True)
    clear_versions(dataset)


def _clean(dataset: lance.LanceDataset, *, forget: bool = True, **options: Any) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            if forget:
                forget_readers(dataset)
            dataset.cleanup_old_versions(**options)
            return
        except (OSError, ValueError) as error:
            # Somebody began or ended reading while the tags were read.
            if "tag" not in str(error) or attempt == _ATTEMPTS - 1:
                raise


@contextmanager
def reads_long(dataset: lance.LanceDataset) -> Iterator[None]:
    """Keep the version that is read, and all of the hour before, from being cleaned away by other writers meanwhile.

    In an object store they stay for an hour, and no longer.

    Args:
        dataset: What is read.
    """
    place = Location.of(dataset.uri)
    # In an object store, the tag of a reader that was killed would keep its version for ever.
    if not place.is_local or not os.access(place.path, os.W_OK):
        # Nobody who has the same rights can clean away anything.
        yield
        return
    with lock(place.path / _READERS, shared=True):
        tag = _READING + secrets.token_hex(8)
        # Without luck, as on a full disk or where the version is gone already, reading fails later or does not.
        with suppress(OSError, ValueError):
            dataset.tags.create(tag, dataset.version)
        try:
            yield
        finally:
            with suppress(OSError, ValueError):
                dataset.tags.delete(tag)


def forget_readers(dataset: lance.LanceDataset) -> None:
    """Let go of the versions that are kept for those who read them.

    Args:
        dataset: At its newest version; nobody reads it who would not rather read again.
    """
    for tag in dataset.tags.list():
        if tag.startswith(_READING):
            # Who reads may have taken it away at the same time.
            with suppress(OSError, ValueError):
                dataset.tags.delete(tag)
