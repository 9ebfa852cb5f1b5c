"""Which rows differ between two versions of a dataset, found without reading the fragments that do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import lance
import numpy as np

from mmalign.errors import StorageError
from mmalign.store.lance_store import Store
from mmalign.utils import Int64Array


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows that left their place or came to one between an older and a newer version.

    Attributes:
        before: Row ids that were deleted, updated or moved, int64 of shape (n,).
        after: Row ids that lie in fragments that are new, int64 of shape (m,); those that are in `before` too were
            updated or only moved.
        written: Those of `after` that were inserted or updated after the version asked for.
        known: Row ids by fragment at the newer version, for the next comparison.
    """

    before: Int64Array
    after: Int64Array
    written: Int64Array
    known: Mapping[int, Int64Array]

    @property
    def deleted(self) -> Int64Array:
        """Row ids that are gone, int64."""
        return self.before[~np.isin(self.before, self.after)]


def find_changes(
    old: Store, new: Store, *, since: int, known: Mapping[int, Int64Array] | None = None, most: int | None = None
) -> Changes | None:
    """Compare two versions of a dataset fragment by fragment.

    Lance never changes a fragment's files: whatever is inserted, updated, deleted or compacted shows in the list of
    fragments, which is in memory. Only the row ids of those that differ are read.

    Args:
        old: The older version; a store that is still open at it.
        new: A later version of the same dataset.
        since: `written` holds what was written after this dataset version.
        known: `known` of the changes that led to `old`: these row ids need not be read again.
        most: Give up where more row ids than this would have to be read.

    Returns:
        The changes; None where there are more than `most`, where `new` is the older of the two, or where files of the
        older version have been cleaned away.
    """
    if new.version < old.version or new.dataset.uri != old.dataset.uri:
        return None
    kept = dict(known or {})
    before = {fragment.fragment_id: fragment for fragment in old.dataset.get_fragments()}
    after = {fragment.fragment_id: fragment for fragment in new.dataset.get_fragments()}
    differ = {name for name, one in after.items() if name not in before or one.metadata != before[name].metadata}
    # Those that only lost rows are most of the data, and hold nothing new.
    pruned = {name for name in differ if name in before and _same_files(before[name], after[name])}
    left = [one for name, one in before.items() if name not in after or name in differ - pruned]
    come = [after[name] for name in differ - pruned]
    work = sum(one.physical_rows for one in left) + 2 * sum(one.physical_rows for one in come)
    work += sum(after[name].physical_rows * (1 if name in kept else 2) for name in pruned)
    if most is not None and work > most:
        return None
    gone = [np.zeros(0, np.int64)]
    try:
        for name in pruned:
            were = kept[name] if name in kept else old.row_ids(fragments=[before[name]])
            kept[name] = new.row_ids(fragments=[after[name]])
            gone.append(were[~np.isin(were, kept[name])])
        return Changes(
            before=np.concatenate([*gone, old.row_ids(fragments=left) if left else gone[0]]),
            after=new.row_ids(fragments=come) if come else gone[0],
            written=new.row_ids(since=since, fragments=come) if come else gone[0],
            known={name: ids for name, ids in kept.items() if name in after and name not in differ - pruned},
        )
    except (OSError, ValueError, StorageError):
        return None


def _same_files(old: lance.LanceFragment, new: lance.LanceFragment) -> bool:
    """Whether two states of a fragment differ in nothing but which of its rows are deleted."""
    return replace(old.metadata, deletion_file=None) == replace(new.metadata, deletion_file=None)
