"""Merging what many small writes leave: small fragments, rows that are deleted, and earlier versions.

Fragments are merged with others of about their size, as in a log-structured merge tree (O'Neil and others, 1996), so
that a small write never rewrites a large fragment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import lance

from mmalign.errors import StorageError
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
    """Drop earlier versions, but for the newest few, and those of the last hour where somebody `reads_long`.

    Args:
        dataset: At its newest version.
    """
    try:
        with lock(Path(dataset.uri) / _READERS, wait=False) as alone:
            if alone:
                dataset.cleanup_old_versions(retain_versions=_KEEP_NEWEST, error_if_tagged_old_versions=False)
            else:
                dataset.cleanup_old_versions(older_than=_KEEP_READ, error_if_tagged_old_versions=False)
    except StorageError:
        # No locks on this disk: nobody can be asked.
        dataset.cleanup_old_versions(older_than=_KEEP_READ, error_if_tagged_old_versions=False)
    clear_versions(dataset)


@contextmanager
def reads_long(dataset: lance.LanceDataset) -> Iterator[None]:
    """Keep the version that is read, and all of the hour before, from being cleaned away by other writers meanwhile.

    Args:
        dataset: What is read.
    """
    if not os.access(dataset.uri, os.W_OK):
        # Nobody who has the same rights can clean away anything.
        yield
        return
    with lock(Path(dataset.uri) / _READERS, shared=True):
        yield
