"""What to do with an index that has fallen behind the items: nothing yet, take them in, or build it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmalign.errors import IndexFileError
from mmalign.index import Index, IndexManifest, extend_index, lifecycle
from mmalign.search import Coverage, belongs
from mmalign.store import Float16Array, Store
from mmalign.utils import Int64Array, track

# The tail is compared with one by one in each search. Some thousand vectors cost less than looking into an index does.
_UNINDEXED_SHARE, _UNINDEXED_ROWS = 0.1, 20_000
# Positions that are held in vain cost room, and filters some recall; both grow with their share.
_STALE_SHARE = 0.2
# Lists and codes are made for a number of vectors: with twice as many, other ones would suit better.
_GROWTH = 2.0

# Vectors that are read from the store at once.
_CHUNK = 65_536

MaintenanceAction = Literal["keep", "extend", "build"]


@dataclass(frozen=True, slots=True)
class IndexState:
    """How an index stands to the items.

    Attributes:
        items: How many items there are.
        unindexed: How many of them the index lacks or knows with an old vector.
        stale: How many positions of the index are not true any more.
        positions: How many positions it has.
        trained_rows: How many vectors there were when it was trained.
    """

    items: int
    unindexed: int
    stale: int
    positions: int
    trained_rows: int


def choose_action(state: IndexState) -> tuple[MaintenanceAction, str]:
    """Say what to do with an index.

    Args:
        state: How it stands to the items.

    Returns:
        `keep`, `extend` or `build`, and the reason in words.
    """
    if state.stale > _STALE_SHARE * state.positions:
        return "build", f"{state.stale:,} of the {state.positions:,} vectors that it holds are gone or have changed"
    if state.unindexed <= min(_UNINDEXED_SHARE * state.items, _UNINDEXED_ROWS):
        return "keep", f"it covers all but {state.unindexed:,} of {state.items:,} items"
    if state.items > _GROWTH * state.trained_rows:
        return "build", f"it was made for {state.trained_rows:,} items, and there are {state.items:,}"
    return "extend", f"{state.unindexed:,} of {state.items:,} items are not in it"


def extend(
    root: Path,
    store: Store,
    *,
    measure: Callable[[Index], Mapping[str, Any]] | None = None,
    progress: bool = True,
) -> IndexManifest:
    """Take into the index in use what it lacks of the items, and put the longer one in use in one step.

    Its training and its tombstones are kept. Searches and writes go on meanwhile; what is written after
    the version of `store` is left to the next time.

    Args:
        root: The folder of the index's versions.
        store: The items.
        measure: Measures the longer index, and returns its profile; None to keep what was measured before.
        progress: Whether to show a progress bar.

    Returns:
        The manifest of the new version.

    Raises:
        IndexFileError: No index is in use, or it is damaged or of other items.
        StorageError: The disk refused; the index in use stays.
    """
    # Every byte is copied into the new version: damage must not be copied with it and given a new checksum.
    loaded = lifecycle.load_current(root, verify=True)
    if loaded is None:
        raise IndexFileError(f"{root} has no index in use; build one")
    index, manifest = loaded
    if not belongs(store, manifest):
        raise IndexFileError(f"{root} was built from other items than these; build the index again")
    covered = Coverage.look(store, index, since=manifest.dataset_version)
    unindexed = np.sort(covered.unindexed)
    stale = index.ids[index.live & ~covered.mask] if covered.mask is not None else unindexed[:0]

    def chunks() -> Iterator[tuple[Int64Array, Float16Array]]:
        for start in range(0, len(unindexed), _CHUNK):
            yield store.embeddings(unindexed[start : start + _CHUNK])

    work = lifecycle.claim_workspace(
        root, f"extend {manifest.version}", version=store.version, usable=lambda version: version == store.version
    )
    with work as place, track("Extending the index", len(unindexed), enabled=progress) as advance:
        longer = extend_index(root / manifest.version, chunks, removed=stale, workspace=place.folder, advance=advance)
        kept = replace(
            manifest,
            rows=len(longer),
            dataset_version=store.version,
            dataset=store.mark(),
            trained_rows=manifest.trained_rows or manifest.rows,
            contract=manifest.contract if measure is None else measure(longer),
        )
        published = lifecycle.publish(root, longer, kept)
    lifecycle.clean(root)
    return published
