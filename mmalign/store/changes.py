"""Which rows differ between two versions of a dataset, found without reading the fragments that do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmalign.similarity import Int64Array
from mmalign.store.lance_store import Store


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows of those fragments that differ between an older and a newer version.

    Attributes:
        before: Row ids that lay in them at the older version, int64 of shape (n,).
        after: Row ids that lie in them at the newer version, int64 of shape (m,); those that are in `before` too may
            have been written anew or only moved.
        written: Those of `after` that were inserted or updated after the version asked for.
    """

    before: Int64Array
    after: Int64Array
    written: Int64Array

    @property
    def deleted(self) -> Int64Array:
        """Row ids that are gone, int64."""
        return self.before[~np.isin(self.before, self.after)]


def find_changes(old: Store, new: Store, *, since: int, most: int | None = None) -> Changes | None:
    """Compare two versions of a dataset fragment by fragment.

    Lance never changes a fragment's files: whatever is inserted, updated, deleted or compacted shows in the list of
    fragments, which is in memory. Only the row ids of those that differ are read.

    Args:
        old: The older version; a store that is still open at it.
        new: A later version of the same dataset.
        since: `written` holds what was written after this dataset version.
        most: Give up where fragments with more rows than this differ.

    Returns:
        The changes; None where there are more than `most`, where `new` is the older of the two, or where files of the
        older version have been cleaned away.
    """
    if new.version < old.version or new.dataset.uri != old.dataset.uri:
        return None
    before = {fragment.fragment_id: fragment for fragment in old.dataset.get_fragments()}
    after = {fragment.fragment_id: fragment for fragment in new.dataset.get_fragments()}
    same = {name for name, one in after.items() if name in before and one.metadata == before[name].metadata}
    left = [one for name, one in before.items() if name not in same]
    come = [one for name, one in after.items() if name not in same]
    if most is not None and sum(one.physical_rows for one in (*left, *come)) > most:
        return None
    none = np.zeros(0, np.int64)
    try:
        return Changes(
            before=old.row_ids(fragments=left) if left else none,
            after=new.row_ids(fragments=come) if come else none,
            written=new.row_ids(since=since, fragments=come) if come else none,
        )
    except (OSError, ValueError):
        return None
