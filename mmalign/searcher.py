"""One version of the items and one version of the index, searched together so that every committed item is seen.

The index covers the items as they were at some version. What was written since is searched exactly beside it, and what
was deleted or replaced since is masked in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign.coverage import Coverage
from mmalign.errors import IndexFileError, MissingExtraError
from mmalign.index import publish
from mmalign.index.base import Index
from mmalign.index.publish import IndexManifest
from mmalign.similarity import Float32Array, Int64Array, exact_top_k, merge_top_k
from mmalign.store.lance_store import Float16Array, Store

# Vectors that are searched exactly stay in memory up to this size, and are read chunk by chunk beyond.
_CACHE_BYTES = 1 << 30
# Up to so many allowed items a filter is answered exactly from the store: it costs less than any way around them.
_EXACT_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        scores: Shape (q, k'), float32, best first.
        row_ids: Shape (q, k'), int64; -1 marks an empty place.
        exact: Whether these are certain to be the true nearest.
        effort: Effort that the index was asked for; None where it was not used.
    """

    scores: Float32Array
    row_ids: Int64Array
    exact: bool
    effort: int | None


class Searcher:
    """Searches one version of the items with one version of the index.

    Args:
        store: The items.
        index: The index, or None.
        manifest: The index's manifest, or None.
        version: Name of the index version in use, also where it could not be loaded.
        notes: Remarks for the person who searches.
        known: What the same index covers of an earlier version, so that only what has changed is looked at.

    Attributes:
        items: How many items there are.
    """

    def __init__(
        self,
        store: Store,
        index: Index | None,
        manifest: IndexManifest | None,
        *,
        version: str | None = None,
        notes: tuple[str, ...] = (),
        known: Coverage | None = None,
    ) -> None:
        self.store = store
        self.index = index
        self.manifest = manifest
        self.version = version
        self.notes = notes
        self.items = len(store)
        self._coverage: Coverage | None = None
        # What is not to be found in the index, or None where that holds exactly what it should.
        self._mask: NDArray[np.bool_] | None = None
        if index is None or manifest is None:
            self._tail = store.row_ids()
        else:
            since = manifest.dataset_version
            covered = Coverage.look(store, index, since=since) if known is None else known.follow(store, index)
            self._coverage, self._tail, self._mask = covered, covered.tail, covered.mask
        self._cached: tuple[Int64Array, Float16Array] | None = None

    @classmethod
    def open(cls, store: Store, root: Path, *, previous: Searcher | None = None) -> Searcher:
        """Combine a version of the items with the index in use.

        Args:
            store: The items.
            root: The collection's index folder.
            previous: A searcher whose index is kept where it is still the one in use.

        Returns:
            The searcher; without an index where there is none or it cannot be used, which `notes` then says.
        """
        folder = publish.current(root)
        version = None if folder is None else folder.name
        if previous is not None and previous.version == version:
            known = previous._coverage
            return cls(store, previous.index, previous.manifest, version=version, notes=previous.notes, known=known)
        try:
            loaded = publish.load_current(root)
        except (IndexFileError, MissingExtraError) as error:
            return cls(store, None, None, version=version, notes=(f"searched exactly, without the index: {error}",))
        if loaded is None:
            return cls(store, None, None, version=version)
        return cls(store, *loaded, version=version)

    @property
    def uncovered(self) -> int:
        """How many items the index does not cover, plus how many it holds in vain."""
        return len(self._tail) if self._coverage is None else self._coverage.uncovered

    @property
    def tail(self) -> Int64Array:
        """Row ids of the items that the index does not cover, shape (m,); all where there is no index."""
        return self._tail

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Which positions of the index hold items as they are now, or None for all of them."""
        return self._mask

    def search(self, queries: Float32Array, k: int, *, allowed: Int64Array | None = None) -> Found:
        """Find the items nearest to each query.

        Args:
            queries: Shape (q, dim), float32, rows of length 1.
            k: How many hits, at least 0.
            allowed: Row ids that may be found; None for all.

        Returns:
            What was found.
        """
        index = self.index
        if index is None or k == 0:
            return Found(*self._search_rows(queries, k, self._tail, allowed), exact=True, effort=None)
        mask = self._mask
        if allowed is not None:
            mask = np.isin(index.ids, allowed) & (True if mask is None else mask)
        rows = len(index.ids) if mask is None else int(np.count_nonzero(mask))
        few = allowed is not None and rows <= _EXACT_ROWS
        if mask is not None and (few or rows < index.min_share * len(index.ids)):
            everything = np.union1d(index.ids[mask], self._tail if allowed is None else _both(self._tail, allowed))
            return Found(*self._search_rows(queries, k, everything, None), exact=True, effort=None)
        found = index.search(queries, k, where=mask)
        if not index.true_scores:
            found = self._rescore(queries, *found)
        if len(self._tail):
            found = merge_top_k(found, self._search_rows(queries, k, self._tail, allowed), k)
        return Found(*found, exact=index.exhaustive, effort=index.default_effort)

    def _rescore(
        self, queries: Float32Array, scores: Float32Array, row_ids: Int64Array
    ) -> tuple[Float32Array, Int64Array]:
        """Replace the scores of an index that tells no cosines by those of the vectors themselves."""
        scores = scores.copy()
        for query, own, row in zip(queries, scores, row_ids, strict=True):
            hits = row >= 0
            if hits.any():
                own[hits] = self.store.embeddings(row[hits])[1].astype(np.float32) @ query
        return merge_top_k((scores, row_ids), (scores[:, :0], row_ids[:, :0]), scores.shape[1])

    def _search_rows(
        self, queries: Float32Array, k: int, rows: Int64Array, allowed: Int64Array | None
    ) -> tuple[Float32Array, Int64Array]:
        """Search some rows exactly, from memory where they are the tail and fit, else from the store in chunks."""
        wanted = rows if allowed is None else _both(rows, allowed)
        best = (np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64))
        if not len(wanted) or k == 0:
            return best
        if rows is self._tail and 2 * len(rows) * self.store.dim <= _CACHE_BYTES:
            ids, vectors = self._tail_vectors()
            if allowed is not None:
                chosen = np.isin(ids, wanted)
                ids, vectors = ids[chosen], vectors[chosen]
            scores, positions = exact_top_k(queries, vectors, k)
            return scores, ids[positions]
        step = max(1024, _CACHE_BYTES // 16 // self.store.dim)
        for start in range(0, len(wanted), step):
            ids, vectors = self.store.embeddings(wanted[start : start + step])
            scores, positions = exact_top_k(queries, vectors, k)
            best = merge_top_k(best, (scores, ids[positions]), k)
        return best

    def _tail_vectors(self) -> tuple[Int64Array, Float16Array]:
        if self._cached is None:
            whole = self.index is None
            self._cached = self.store.embeddings() if whole else self.store.embeddings(self._tail)
        return self._cached


def _both(a: Int64Array, b: Int64Array) -> Int64Array:
    return np.intersect1d(a, b, assume_unique=True)
