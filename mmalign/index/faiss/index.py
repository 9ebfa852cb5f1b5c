"""FAISS indexes of any factory string, with removal, filters and honest results."""

from __future__ import annotations

import math
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import IndexFileError, InputError, RecipeError
from mmalign.index.base import AllowedRows, FilterSupport, check_search, no_hits
from mmalign.index.faiss import gpu as faiss_gpu
from mmalign.index.faiss import scan as faiss_scan
from mmalign.index.faiss import structure as anatomy
from mmalign.index.faiss.io import read_faiss, reason, write_faiss
from mmalign.index.faiss.library import load_faiss
from mmalign.index.files import read_header, write_header
from mmalign.index.ids import IdMap
from mmalign.utils import Float32Array, Int64Array, as_matrix, link_or_copy, storage_errors

_INDEX = "index.faiss"
_KIND = "faiss"
_EXAMPLES = "Flat, SQ8, HNSW32, IVF256,Flat, IVF1024,PQ32x4fs,RFlat"
# A refinement compares this many times k candidates again where the effort does not say otherwise.
_K_FACTOR = 8
# Parameters of searches that are kept; most indexes are asked with a few efforts.
_PARAMETERS = 64
# A step in a graph compares with about this many neighbours that were not seen yet.
_DEGREE = 16
# FAISS aborts or crashes the process on these instead of refusing them.
_DEADLY = re.compile(r"(?:^|[,_(])(?:HNSW[01]|NSG0|IVF0)(?!\d)")


def require_gpu(*, cagra: bool = False) -> None:
    """Refuse where FAISS has no graphics card to work with.

    Args:
        cagra: Whether it needs cuVS too, to build a graph.

    Raises:
        EnvironmentConflictError: This FAISS was not built for cards, sees none, or lacks cuVS.
        MissingExtraError: FAISS is not installed.
    """
    faiss_gpu.require_gpu_support(cagra=cagra)


class FaissIndex:
    """A FAISS index of a factory string, by inner product.

    FAISS holds positions 0..n-1 and `ids` maps them to ids, so that every kind of index can be added to by id.
    Removal leaves a tombstone, since FAISS's graphs and refinements cannot remove. Every result is checked against
    tombstones and filter before it is returned.

    Args:
        factory: A FAISS factory string.
        dim: Width of a vector.
        default_effort: nprobe, efSearch or k_factor of a search that names none; None for a value that suits the
            factory.
        k_factor: How many times k candidates a refinement compares again, where effort means something else.
        ef_construction: How many candidates a graph looks at for the neighbours of each vector that is added; None for
            FAISS's own, 40.

    Raises:
        RecipeError: FAISS does not know the factory string, or not for inner products; or it has no graph, and
            `ef_construction` is given.
        MissingExtraError: FAISS is not installed.
    """

    def __init__(
        self,
        factory: str,
        dim: int,
        *,
        default_effort: int | None = None,
        k_factor: int = _K_FACTOR,
        ef_construction: int | None = None,
    ) -> None:
        if dim < 1:
            raise InputError(f"dim must be at least 1, got {dim}")
        faiss = load_faiss()
        if _DEADLY.search(factory):
            raise RecipeError(f"factory string {factory!r} has a part of size 0 or 1; try one like: {_EXAMPLES}")
        try:
            index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        except (RuntimeError, TypeError, MemoryError) as error:
            # FAISS checks some parts for L2 alone, with no more than the bare condition as its message.
            why = reason(error).replace("metric == METRIC_L2", "it works with L2 distances only")
            raise RecipeError(
                f"factory string {factory!r} cannot be used for inner products of dim {dim}: {why}; "
                f"try one like: {_EXAMPLES}"
            ) from error
        self._set(index, factory, IdMap(), default_effort=default_effort, k_factor=k_factor, mapped=False)
        if ef_construction is not None:
            anatomy.set_ef_construction(self._inner, ef_construction)

    def _set(
        self, index: Any, factory: str, ids: IdMap, *, default_effort: int | None, k_factor: int, mapped: bool
    ) -> None:
        faiss = load_faiss()
        self._factory = factory
        self._index = index
        self._dim = int(index.d)
        self._trained = False
        outer = faiss.downcast_index(index)
        self._has_id_map = isinstance(outer, faiss.IndexIDMap)
        # Ids are positions, so the map changes nothing; without it FAISS need not translate selectors.
        self._inner = faiss.downcast_index(outer.index) if self._has_id_map else outer
        self._map = ids
        self._mapped = mapped
        # The file that the index is mapped from.
        self._file: Path | None = None
        self._structure = anatomy.index_structure(self._inner)
        self._refines_by_effort = self._structure.effort_name == "k_factor"
        self._storage = anatomy.scannable(self._inner)
        self._held = faiss_scan.held_vectors(self._inner)
        self._default_effort = default_effort if self._structure.default_effort is not None else None
        self._k_factor = k_factor
        # FAISS's parameters of searches without a filter, which it only reads: to make them takes longer than to ask
        # a small graph.
        self._parameters: dict[tuple[int | None, float], Any] = {}
        self._packed: tuple[NDArray[np.bool_] | None, NDArray[np.uint8] | None] = (None, None)
        self._cards: faiss_gpu.GpuReplica | None = None

    @property
    def bare(self) -> Any:
        """The FAISS index itself, for the other modules of this package."""
        return self._index

    @property
    def file(self) -> Path | None:
        """The FAISS file that the index is mapped from, or None where it is in memory."""
        return self._file

    @property
    def factory(self) -> str:
        """The FAISS factory string."""
        return self._factory

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._dim

    @property
    def ntotal(self) -> int:
        """How many vectors can be found, the removed ones left out."""
        return self._map.count

    @property
    def ids(self) -> Int64Array:
        """The id at each position, int64 of shape (positions,), removed rows included."""
        return self._map.ids

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which positions are not removed, bool of shape (positions,)."""
        return self._map.live

    @property
    def filter_support(self) -> FilterSupport:
        """How the index filters."""
        return self._structure.filter_support

    @property
    def min_selectivity(self) -> float:
        """Share of allowed rows below which exact search over the allowed vectors is the better choice."""
        return self._structure.min_selectivity

    @property
    def exact_scores(self) -> bool:
        """Whether scores are inner products with the vectors, right to about 1e-3."""
        return self._structure.exact_scores

    @property
    def exhaustive(self) -> bool:
        """Whether the hits are certain to be the true nearest ones."""
        return self._structure.exhaustive

    @property
    def default_effort(self) -> int | None:
        """nprobe, efSearch or k_factor of a search that names none; None where effort means nothing."""
        return self._default_effort or self._structure.default_effort

    @property
    def layers(self) -> anatomy.IndexStructure:
        """What the index is made of."""
        return self._structure

    @property
    def k_factor(self) -> int:
        """How many times k candidates a refinement compares again, where effort means something else."""
        return self._k_factor

    @property
    def ef_construction(self) -> int | None:
        """At how many candidates a graph looks for the neighbours of a vector; None where there is no graph."""
        return anatomy.ef_construction(self._inner)

    @property
    def scans(self) -> bool:
        """Whether `scan` works: the index holds the vectors themselves, at least in float16."""
        return self._held is not None

    def max_effort(self, share: float = 1.0) -> int | None:
        """Return the nprobe or efSearch beyond which nothing more is found; see `Index.max_effort`."""
        return anatomy.max_effort(self._structure, len(self._map), share)

    @property
    def effort_name(self) -> str | None:
        """What FAISS calls the effort, or None where effort means nothing."""
        return self._structure.effort_name

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        # FAISS takes long to say it, and what was trained stays so.
        self._trained = self._trained or bool(self._index.is_trained)
        return self._trained

    @property
    def least_training(self) -> int:
        """How many vectors training takes at least; 0 where the index needs none."""
        return anatomy.training_need(self._inner)

    def advised_training(self, per_centroid: int) -> int:
        """Say how many vectors to train on.

        Args:
            per_centroid: How many for each list or code; FAISS wants 39 to 256.

        Returns:
            The number, at least 10,000; 0 where the index needs no training.
        """
        return max(10_000, per_centroid * self.least_training) if self.least_training else 0

    def __len__(self) -> int:
        return self.ntotal

    def train(self, vectors: ArrayLike) -> None:
        """Train on a random sample of the data; see `Index.train`."""
        matrix = as_matrix(vectors, dim=self.dim)
        if self.is_trained:
            return
        if len(matrix) < self.least_training:
            raise RecipeError(
                f"index {self.factory!r} needs at least {self.least_training} training vectors (better 39 times as "
                f"many), got {len(matrix)}; use fewer lists or codes, or the recipe flat"
            )
        try:
            with anatomy.quiet_training(self._inner):
                self._index.train(matrix)
        except RuntimeError as error:
            raise RecipeError(
                f"index {self.factory!r} cannot be trained on {len(matrix)} vectors of dim {self.dim}: {reason(error)}"
            ) from error

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add vectors; see `Index.add`."""
        if self._mapped:
            raise InputError("a memory-mapped index cannot be added to; load it with mmap=False")
        if not self.is_trained:
            raise InputError(f"index {self.factory!r} is not trained; call train(vectors) first")
        matrix = as_matrix(vectors, dim=self.dim)
        new = self._map.check_new(ids, len(matrix))
        if not len(matrix):
            return
        try:
            if self._has_id_map:
                start = len(self._map)
                self._index.add_with_ids(matrix, np.arange(start, start + len(matrix), dtype=np.int64))
            else:
                self._index.add(matrix)
        except RuntimeError as error:
            raise InputError(f"index {self.factory!r} cannot add {len(matrix)} vectors: {reason(error)}") from error
        self._map.extend(new)
        # A copy on cards lacks them; `to_device` makes another.
        self._cards = None

    @classmethod
    def from_gpu(cls, factory: str, ids: ArrayLike, vectors: ArrayLike, *, default_effort: int | None = None) -> Self:
        """Build a graph on a graphics card (CAGRA).

        Args:
            factory: `HNSW<m>,Flat`: the graph is saved as one of that degree, which any FAISS searches.
            ids: Integers of shape (n,), at least 0, all different.
            vectors: All vectors, shape (n, dim).
            default_effort: As for the constructor.

        Returns:
            The index, in memory.

        Raises:
            EnvironmentConflictError: There is no card, or FAISS has no cuVS.
            RecipeError: Another factory string.
            InputError: As `add`.
        """
        found = re.fullmatch(r"HNSW(\d+)(?:,Flat)?", factory)
        if found is None:
            raise RecipeError(f"a graphics card builds graphs of the form HNSW32,Flat, got {factory!r}")
        matrix = as_matrix(vectors)
        known = IdMap()
        known.extend(known.check_new(ids, len(matrix)))
        graph = faiss_gpu.build_cagra(matrix, degree=2 * int(found[1]))
        return cls._wrap(graph, factory, known, {"default_effort": default_effort}, mapped=False)

    def to_device(self, device: str, *, spread: faiss_gpu.Spread = "auto") -> None:
        """Search on graphics cards from now on, or on the processor again.

        Filters that leave less than half of the vectors, and more than 2,048 candidates or lists, are for the
        processor, which keeps the index; `search_on_device` says so. What is saved does not depend on this.

        Args:
            device: `cpu` or `cuda`.
            spread: How several cards share: `replicas`, `shards`, or `auto` for the first of these that fits.

        Raises:
            InputError: Another device.
            EnvironmentConflictError: There is no card, or the index does not fit.
            RecipeError: This kind of index is not for cards, or FAISS refuses this one.
        """
        if device not in ("cpu", "cuda"):
            raise InputError(f"device must be cpu or cuda, got {device!r}")
        self._cards = None if device == "cpu" else faiss_gpu.GpuReplica(self._inner, spread=spread)

    @property
    def device(self) -> str:
        """Where searches run, if they can: `cpu` or `cuda`."""
        return "cpu" if self._cards is None else "cuda"

    def training_on_gpu(self) -> AbstractContextManager[None]:
        """While this context is open, `train` has graphics cards assign vectors to lists."""
        faiss = load_faiss()
        return faiss_gpu.trained_on_gpu(faiss.try_extract_index_ivf(self._index))

    def remove(self, ids: ArrayLike) -> int:
        """Remove vectors; see `Index.remove`."""
        return self._map.remove(ids)

    def search(
        self, vectors: ArrayLike, k: int, *, where: AllowedRows | None = None, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest vectors of each query; see `Index.search`.

        Where a search comes back with fewer hits than there are allowed rows, it is repeated with more effort for
        the queries concerned. Only a graph that cannot reach a row may still return fewer.
        """
        scores, ids, _ = self.search_on_device(vectors, k, where=where, effort=effort)
        return scores, ids

    def search_on_device(
        self, vectors: ArrayLike, k: int, *, where: AllowedRows | None = None, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array, str]:
        """Find the nearest vectors of each query, and say where the processor had to; see `SearchesOnDevice`."""
        check_search(k, effort)
        queries = as_matrix(vectors, dim=self.dim, name="queries")
        if not self.is_trained:
            raise InputError(f"index {self.factory!r} is not trained; call train(vectors), then add(ids, vectors)")
        mask = self._map.allowed(where)
        rows = len(self._map)
        allowed = rows if mask is None else int(np.count_nonzero(mask))
        want, width, refusal = min(k, allowed), min(k, self.ntotal), ""
        found = None
        if want and len(queries):
            effort = effort if effort is not None else self.default_effort
            share = allowed / rows
            if self._cards is not None:
                found, refusal = self._on_cards(queries, want, mask, effort=effort, share=share)
            if found is None and mask is not None and self.filter_support == "none":
                found = self._over_fetch(queries, want, mask, effort=effort, share=share)
            elif found is None:
                found = self._select(queries, want, mask, effort=effort, share=share)
        if found is None or want < width:
            scores, positions = no_hits(len(queries), width)
            if found is not None:
                scores[:, :want], positions[:, :want] = found
        else:
            scores, positions = found
        return scores, self._map.at(positions), refusal

    def search_positions(
        self, vectors: ArrayLike, k: int, *, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest of all vectors that the index holds; see `SearchesPositions`."""
        check_search(k, effort)
        queries = as_matrix(vectors, dim=self.dim, name="queries")
        rows = len(self._map)
        want = min(k, rows)
        if not want or not len(queries):
            return no_hits(len(queries), want)
        return self._select(queries, want, None, effort=effort or self.default_effort, share=1.0)

    def scan(self, vectors: ArrayLike, k: int, *, where: AllowedRows | None = None) -> tuple[Float32Array, Int64Array]:
        """Find the true nearest vectors of each query by comparing with every allowed one.

        Args:
            vectors: Queries of shape (q, dim) or (dim,).
            k: How many, at least 0.
            where: As for `search`.

        Returns:
            As `search`.

        Raises:
            InputError: The index does not hold the vectors (see `scans`), or as `search`.
            DimensionError: The width differs.
        """
        check_search(k, None)
        if self._held is None:
            raise InputError(f"index {self.factory!r} holds codes alone and cannot be scanned; search the collection")
        queries = as_matrix(vectors, dim=self.dim, name="queries")
        mask = self._map.allowed(where)
        scores, positions = no_hits(len(queries), min(k, self.ntotal))
        want = min(k, len(self._map) if mask is None else int(np.count_nonzero(mask)))
        if want and len(queries):
            scores[:, :want], positions[:, :want] = faiss_scan.scan(self._held, queries, want, mask)
        return scores, self._map.at(positions)

    def _on_cards(
        self, queries: Float32Array, want: int, mask: NDArray[np.bool_] | None, *, effort: int | None, share: float
    ) -> tuple[tuple[Float32Array, Int64Array] | None, str]:
        """Let graphics cards look; None, and why, where they cannot. What comes back short, the processor completes."""
        assert self._cards is not None
        k_factor = float(effort if self._refines_by_effort and effort is not None else self._k_factor)
        widened = anatomy.widened(self._structure, effort, share, len(self._map))
        found, refusal = self._cards.find(queries, want, mask, effort=widened, k_factor=k_factor)
        if found is None:
            return None, refusal
        scores, positions = found
        (short,) = (positions[:, -1] < 0).nonzero()
        if short.size:
            scores[short], positions[short] = self._select(queries[short], want, mask, effort=effort, share=share)
        return found, ""

    def _select(
        self, queries: Float32Array, want: int, mask: NDArray[np.bool_] | None, *, effort: int | None, share: float
    ) -> tuple[Float32Array, Int64Array]:
        """Let FAISS skip what is not allowed, looking further the less is."""
        rows = len(self._map)
        bits = None if mask is None else self._pack(mask)
        effort = anatomy.widened(self._structure, effort, share, rows)
        graph = self._structure.core == "hnsw" and self._storage is not None
        if graph and effort is not None and mask is not None and share * rows <= _DEGREE * effort:
            # Comparing with the few that are allowed costs less than walking a graph past all the others.
            return self._call(queries, want, mask, bits, effort=None, scan=True)
        scores, positions = self._call(queries, want, mask, bits, effort=effort)
        (short,) = (positions[:, -1] < 0).nonzero()
        most = anatomy.max_effort(self._structure, rows) if short.size else None
        while short.size and not graph and most is not None and effort is not None and effort < most:
            effort = min(most, 4 * effort)
            scores[short], positions[short] = self._call(queries[short], want, mask, bits, effort=effort)
            short = short[positions[short, -1] < 0]
        if short.size and self._storage is not None:
            # A row that the graph does not reach, or whose code FAISS's fast scan takes for the worst possible.
            scores[short], positions[short] = self._call(queries[short], want, mask, bits, effort=None, scan=True)
        return scores, positions

    def _over_fetch(
        self, queries: Float32Array, want: int, mask: NDArray[np.bool_], *, effort: int | None, share: float
    ) -> tuple[Float32Array, Int64Array]:
        """Fetch more than is wanted and keep what is allowed, until there is enough or nothing more to fetch."""
        rows = len(self._map)
        scores, positions = no_hits(len(queries), want)
        short = np.arange(len(queries))
        fetch = min(rows, math.ceil(1.2 * want / share) + 16)
        while short.size:
            if self._structure.lists and fetch == rows:
                effort = self._structure.lists
            found = self._call(queries[short], fetch, mask, None, effort=effort)
            scores[short], positions[short] = found[0][:, :want], found[1][:, :want]
            short = short[positions[short, -1] < 0]
            if fetch == rows:
                break
            fetch = min(rows, 4 * fetch)
        return scores, positions

    def _call(
        self,
        queries: Float32Array,
        k: int,
        mask: NDArray[np.bool_] | None,
        bits: NDArray[np.uint8] | None,
        *,
        effort: int | None,
        scan: bool = False,
    ) -> tuple[Float32Array, Int64Array]:
        """One FAISS search; hits that are not allowed are dropped, and empty places are last, marked -1 and -inf."""
        faiss = load_faiss()
        k_factor = effort if self._refines_by_effort and effort is not None else self._k_factor
        searched: Any = self._storage if scan else self._inner
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        parameters = (
            faiss.SearchParameters(sel=selector)
            if scan
            else self._search_parameters(effort, max(1.0, min(float(k_factor), len(self._map) / k)), selector)
        )
        try:
            scores, positions = searched.search(queries, k, params=parameters)
        except RuntimeError as error:
            raise InputError(f"index {self.factory!r} cannot be searched like this: {reason(error)}") from error
        return faiss_gpu.keep_allowed(scores, positions, mask)

    def _search_parameters(self, effort: int | None, k_factor: float, selector: Any | None) -> Any | None:
        """FAISS's parameters; those without a selector are kept."""
        if selector is not None:
            return anatomy.search_parameters(self._structure, effort=effort, k_factor=k_factor, selector=selector)
        asked = effort, k_factor
        known = self._parameters.get(asked)
        if known is None:
            made = anatomy.search_parameters(self._structure, effort=effort, k_factor=k_factor, selector=None)
            if len(self._parameters) >= _PARAMETERS:
                self._parameters.clear()
            known = self._parameters[asked] = made
        return known

    def _pack(self, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        known, bits = self._packed
        if known is mask and bits is not None:
            return bits
        bits = np.packbits(mask, bitorder="little")
        if mask is self._map.live:
            # Tombstones are replaced, never changed; a caller's own mask may change between searches.
            self._packed = (mask, bits)
        return bits

    def from_mapped(self, path: Path, ids: IdMap) -> Self:
        """Map an index of the same design from a file.

        Args:
            path: A FAISS file, in which vectors have the positions 0, 1, 2...
            ids: The id at each position.

        Returns:
            The index, which `save` does not write again but links.

        Raises:
            IndexFileError: Not a FAISS file, or damaged.
        """
        options = {"default_effort": self._default_effort, "k_factor": self._k_factor}
        index = self._wrap(read_faiss(path, mmap=True), self.factory, ids, options, mapped=True)
        index._file = path
        return index

    def save(self, folder: Path) -> None:
        """Write `index.faiss`, a plain FAISS file, the ids and `index.json`; see `Index.save`."""
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if self._file is None:
                write_faiss(self._index, folder / _INDEX)
            else:
                link_or_copy(self._file, folder / _INDEX)
            self._map.save(folder)
            header = {"kind": _KIND, "factory": self.factory, "dim": self.dim, "rows": len(self._map)}
            header |= {"default_effort": self._default_effort, "k_factor": self._k_factor}
            write_header(folder, header | {"files": {_INDEX: (folder / _INDEX).stat().st_size}})

    @classmethod
    def load(cls, folder: Path, *, mmap: bool = True) -> Self:
        """Read what `save` wrote; see `Index.load`."""
        # The header's sizes are checked first: FAISS crashes the process when it maps a file that is cut off.
        header = read_header(folder, _KIND)
        index = read_faiss(folder / _INDEX, mmap=mmap)
        ids = IdMap.load(folder, rows=header["rows"], mmap=mmap)
        if (index.d, index.ntotal) != (header["dim"], header["rows"]):
            raise IndexFileError(
                f"{folder / _INDEX}: expected {header['rows']} rows of dim {header['dim']}, "
                f"got {index.ntotal} of dim {index.d}; build the index again"
            )
        loaded = cls._wrap(index, header["factory"], ids, header, mapped=mmap)
        loaded._file = folder / _INDEX if mmap else None
        return loaded

    @classmethod
    def from_file(cls, path: Path, *, ids: ArrayLike | None = None) -> Self:
        """Open a FAISS file that another tool wrote.

        Args:
            path: The file; an inner-product index without an id map of its own.
            ids: The id at each position; None for the positions themselves.

        Returns:
            The index.

        Raises:
            IndexFileError: Not a FAISS file, damaged, or of another metric.
        """
        index = read_faiss(path, mmap=False)
        if ids is None:
            ids = np.arange(index.ntotal, dtype=np.int64)
        known = IdMap()
        known.extend(known.check_new(ids, index.ntotal))
        return cls._wrap(index, f"file:{path.name}", known, {}, mapped=False)

    @classmethod
    def _wrap(cls, index: Any, factory: str, ids: IdMap, header: dict[str, Any], *, mapped: bool) -> Self:
        faiss = load_faiss()
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise IndexFileError(f"{factory}: expected an index by inner product, got metric {index.metric_type}")
        self = cls.__new__(cls)
        effort, k_factor = header.get("default_effort"), header.get("k_factor", _K_FACTOR)
        self._set(index, factory, ids, default_effort=effort, k_factor=k_factor, mapped=mapped)
        return self
