"""Other values for a few rows of a large table, in one commit, at the cost of these rows.

Lance's `merge_insert` first maps all row ids of the version that it begins with, and so does its `take_rows`: once
more after each commit, in a time that grows with the table. Here the rows are found by their ids through a filter,
which needs no such map; they are deleted where they lie, and written again under the row ids that they have. It is
the same transaction that `merge_insert` commits.
"""

from __future__ import annotations

from collections.abc import Iterator

import lance
import numpy as np
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata, RowIdSequence, write_fragments
from numpy.typing import NDArray

from mmalign.utils import Int64Array

UInt64Array = NDArray[np.uint64]

ADDRESS = "_rowaddr"
"""Lance's name for where a row lies: the fragment in the upper 32 bits, the place in it in the lower ones."""

_OFFSET_BITS = 32


def replace_rows(
    dataset: lance.LanceDataset, rows: pa.Table, row_ids: Int64Array, addresses: UInt64Array
) -> lance.LanceDataset | None:
    """Commit rows anew that are there already; their row ids stay.

    Args:
        dataset: At the version at which the rows were read.
        rows: All columns of n rows.
        row_ids: Which rows they are, shape (n,), each once.
        addresses: Where these lie, uint64 of shape (n,).

    Returns:
        The dataset with these rows; None where others have changed it since, and nothing was done.

    Raises:
        OSError: The disk refused; nothing of this commit is kept.
    """
    left = dict(_without(dataset, addresses))
    written = write_fragments(rows, dataset, mode="append")
    start = 0
    for fragment in written:
        stop = start + fragment.physical_rows
        fragment.row_id_meta = RowIdSequence(row_ids[start:stop].tolist()).to_inline_metadata()
        start = stop
    update = lance.LanceOperation.Update(
        removed_fragment_ids=[name for name, fragment in left.items() if fragment is None],
        updated_fragments=[fragment for fragment in left.values() if fragment is not None],
        new_fragments=written,
        # Any column may have changed: no index knows the new fragments.
        fields_for_preserving_frag_bitmap=list(range(dataset.max_field_id + 1)),
        update_mode="rewrite_rows",
    )
    try:
        return lance.LanceDataset.commit(dataset, update, read_version=dataset.version)
    except CommitConflictError:
        return None


def _without(dataset: lance.LanceDataset, addresses: UInt64Array) -> Iterator[tuple[int, FragmentMetadata | None]]:
    """The fragments that hold some rows, as they are without these; None for one that has no others."""
    there = {fragment.fragment_id: fragment for fragment in dataset.get_fragments()}
    fragments = addresses >> _OFFSET_BITS
    for name in np.unique(fragments).tolist():
        offsets = addresses[fragments == name] & ((1 << _OFFSET_BITS) - 1)
        yield name, there[name].delete_rows(offsets.tolist())
