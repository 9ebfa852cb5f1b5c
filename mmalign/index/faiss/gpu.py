"""FAISS on graphics cards: what is there, copies of an index to search, and building with their help.

Importing this file does not import FAISS. Saved files know nothing of cards: an index stays what it is in memory, and a
card holds a copy of it. FAISS's copies know no filters; where few vectors are not allowed, as after removals, more are
fetched and those dropped. What a copy refuses, the processor answers, and the caller learns why.

Limits are those of FAISS's sources without cuVS, which are the tighter ones: `validateKSelect` and `validateNProbe` in
`faiss/gpu/impl/IndexUtils.cu`, and `verifyPQSettings_` in `faiss/gpu/GpuIndexIVFPQ.cu`.

Sources: Johnson, Douze, Jegou, "Billion-scale similarity search with GPUs", 2017 (flat and lists); Ootomo et al.,
"CAGRA: Highly Parallel Graph Construction and Approximate Nearest Neighbor Search for GPUs", 2023.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import EnvironmentConflictError, RecipeError
from mmalign.index.base import Index, MovesToDevice
from mmalign.index.faiss.io import reason
from mmalign.index.faiss.library import load_faiss
from mmalign.utils import Float32Array, Int64Array

Spread: TypeAlias = Literal["auto", "replicas", "shards"]
"""How several cards share: each holds all (`replicas`), or a part (`shards`); `auto` takes the first that fits."""
MOST_K = 2048
"""More neighbours than this a card cannot find at once, nor probe more lists."""
# So many more than are wanted are fetched at least where some vectors are not allowed.
_SPARE = 32
# How much deeper the next search looks where the dropped ones crowded the first.
_DEEPER = 4
# Vectors that are decoded at once on their way to a card.
_CHUNK = 65_536
# A graph is searched with a list of candidates whose length is a multiple of this.
_CAGRA_STEP = 32


@dataclass(frozen=True, slots=True)
class GpuSupport:
    """What this FAISS can do with graphics cards.

    Attributes:
        symbols: Whether it was built for cards.
        count: How many it sees.
        cuvs: Whether it has cuVS, and with it CAGRA.
    """

    symbols: bool
    count: int
    cuvs: bool


def probe() -> GpuSupport:
    """Find out what this FAISS can do with graphics cards.

    Returns:
        What it can do; nothing is set up on a card.
    """
    faiss = load_faiss()
    symbols = all(hasattr(faiss, name) for name in ("StandardGpuResources", "index_cpu_to_gpu", "GpuIndexFlatIP"))
    count = 0
    if symbols:
        try:
            count = int(faiss.get_num_gpus())
        except RuntimeError:
            # No driver, or one that is too old.
            count = 0
    return GpuSupport(symbols, count, symbols and hasattr(faiss, "GpuIndexCagra"))


def require_gpu_support(*, cagra: bool = False) -> GpuSupport:
    """Refuse where there is no card to work with.

    Args:
        cagra: Whether CAGRA is needed.

    Returns:
        What is there.

    Raises:
        EnvironmentConflictError: This FAISS was not built for cards, sees none, or lacks cuVS.
    """
    support = probe()
    if not support.symbols:
        raise EnvironmentConflictError(
            "device cuda needs a FAISS that was built for graphics cards, and this one was not: "
            "pip uninstall -y faiss-cpu && pip install 'mmalign[gpu]', or take a recipe for device cpu"
        )
    if cagra and not support.cuvs:
        raise EnvironmentConflictError(
            "a CAGRA graph needs a FAISS with cuVS, and this one has none: pip uninstall -y faiss-gpu && "
            "pip install faiss-gpu-cuvs, or use the recipe gpu-flat or gpu-ivf-pq"
        )
    if not support.count:
        raise EnvironmentConflictError(
            "FAISS sees no graphics card: look at nvidia-smi, at CUDA_VISIBLE_DEVICES and whether the driver is as new "
            "as the CUDA that this FAISS was built for; or take a recipe for device cpu"
        )
    return support


def place_index(index: Index, device: str) -> str | None:
    """Have an index searched on a device, where it is of a kind that can be.

    Args:
        index: An index of any kind.
        device: `cpu` or `cuda`.

    Returns:
        None, or why its searches stay on the processor.

    Raises:
        EnvironmentConflictError: There is no card.
    """
    if device == (index.device if isinstance(index, MovesToDevice) else "cpu"):
        return None
    if not isinstance(index, MovesToDevice):
        return "searched on the processor: this index is not one of FAISS; build gpu-flat for graphics cards"
    try:
        index.to_device(device)
    except RecipeError as error:
        return f"searched on the processor: {error}"
    return None


class GpuReplica:
    """A copy of an index on graphics cards, for searches that look past few vectors or none.

    Args:
        index: The FAISS index, downcast; it has to outlive the copy where it ends in a refinement, which stays on the
            processor.
        spread: How several cards share.

    Raises:
        EnvironmentConflictError: There is no card, no cuVS where it is needed, or too little memory.
        RecipeError: This kind of index has no copy on a card, or FAISS refuses this one.
    """

    def __init__(self, index: Any, *, spread: Spread = "auto") -> None:
        faiss = load_faiss()
        kind = type(index).__name__
        support = require_gpu_support(cagra=kind == "IndexHNSWCagra")
        # Buffers of a card serve one search at a time.
        self._lock = threading.Lock()
        self._cagra = kind == "IndexHNSWCagra"
        self._refined = kind in ("IndexRefine", "IndexRefineFlat")
        self._resources = [faiss.StandardGpuResources() for _ in range(1 if self._cagra else support.count)]
        inner = faiss.downcast_index(index.base_index) if self._refined else index
        copy = _copier(inner, self._resources)
        self._base, self.spread = _first_that_fits(copy, len(self._resources), spread)
        self._index = faiss.IndexRefine(self._base, index.refine_index) if self._refined else self._base

    def find(
        self, queries: Float32Array, k: int, mask: NDArray[np.bool_] | None, *, effort: int | None, k_factor: float
    ) -> tuple[tuple[Float32Array, Int64Array] | None, str]:
        """Find neighbours among the allowed: more are fetched than are wanted, and the others dropped.

        Args:
            queries: Shape (q, dim), float32.
            k: How many, at least 1 and at most the number of allowed positions.
            mask: Which positions are allowed, bool of shape (n,); None for all.
            effort: As for `search`.
            k_factor: As for `search`.

        Returns:
            The hits as of `search`, and an empty text; or None, and why a card cannot find them.
        """
        excluded = 0 if mask is None else len(mask) - int(np.count_nonzero(mask))
        if mask is not None and 2 * excluded > len(mask):
            return None, "a filter leaves less than half of the vectors"
        most = k + excluded
        fetch = min(most, k + max(k, _SPARE))
        while True:
            refusal = self.refusal(fetch, effort, k_factor)
            if refusal:
                return None, refusal
            try:
                found = self.search(queries, fetch, effort=effort, k_factor=k_factor)
            except RuntimeError as error:
                return None, f"the card refuses: {reason(error)}"
            scores, positions = keep_allowed(*found, mask)
            if fetch == most or (positions[:, k - 1] >= 0).all():
                return (scores[:, :k], positions[:, :k]), ""
            fetch = min(_DEEPER * fetch, most)

    def search(
        self, queries: Float32Array, k: int, *, effort: int | None, k_factor: float
    ) -> tuple[Float32Array, Int64Array]:
        """Find neighbours, as a FAISS index does.

        Args:
            queries: Shape (q, dim), float32.
            k: How many, at most `MOST_K`; with a refinement, times `k_factor`.
            effort: nprobe of lists, or how many candidates a graph keeps; None where it means nothing.
            k_factor: How many times k candidates a refinement compares again.

        Returns:
            `(scores, positions)`, float32 and int64 of shape (q, k); -1 marks an empty place.
        """
        parameters = None
        if self._cagra:
            most = max(k, effort or 0)
            parameters = load_faiss().SearchParametersCagra()
            parameters.itopk_size = -(-most // _CAGRA_STEP) * _CAGRA_STEP
        elif self._refined:
            parameters = load_faiss().IndexRefineSearchParameters(k_factor=k_factor)
        with self._lock:
            if effort is not None and not self._cagra:
                for part in _parts(self._base):
                    part.nprobe = min(effort, part.nlist)
            scores, positions = self._index.search(queries, k, params=parameters)
        return scores, positions

    def refusal(self, k: int, effort: int | None, k_factor: float) -> str:
        """Say why a search cannot run on a card, or nothing where it can.

        Args:
            k: How many neighbours.
            effort: As for `search`.
            k_factor: As for `search`.

        Returns:
            A text; empty where nothing is known against it.
        """
        candidates = math.ceil(k * k_factor) if self._refined else k
        if candidates > MOST_K:
            return f"it takes {candidates:,} candidates, and a card finds at most {MOST_K:,}"
        if effort is not None and effort > MOST_K and not self._cagra:
            probes = max((min(effort, part.nlist) for part in _parts(self._base)), default=0)
            if probes > MOST_K:
                return f"it takes {probes:,} lists, and a card looks into at most {MOST_K:,}"
        return ""


def keep_allowed(
    scores: Float32Array, positions: Int64Array, mask: NDArray[np.bool_] | None
) -> tuple[Float32Array, Int64Array]:
    """Drop hits that are not allowed; the others move up, and the places left over are last.

    Args:
        scores: Shape (q, k), float32, changed in place.
        positions: Shape (q, k), int64, changed in place; -1 marks an empty place.
        mask: Which positions are allowed, bool of shape (n,); None for all.

    Returns:
        `(scores, positions)` of the same shape; empty places hold -inf and -1.
    """
    if mask is None and (not positions.size or positions.min() >= 0):
        return scores, positions
    good = positions >= 0
    if mask is not None:
        good &= mask[np.maximum(positions, 0)]
    if good.all():
        return scores, positions
    scores[~good], positions[~good] = -np.inf, -1
    order = np.argsort(~good, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)


def _copier(index: Any, resources: list[Any]) -> Callable[[bool], Any]:
    """A function that copies an index to cards, in parts where it is called with True."""
    faiss = load_faiss()
    kind = type(index).__name__
    if kind == "IndexHNSWCagra":

        def graph(_: bool) -> Any:
            made = faiss.GpuIndexCagra(resources[0], index.d, faiss.METRIC_INNER_PRODUCT)
            made.copyFrom(index)
            return made

        return graph
    if kind in ("IndexScalarQuantizer", "IndexFlat", "IndexFlatIP"):
        return lambda shard: _flat(index, resources, shard=shard)
    if kind in ("IndexIVFFlat", "IndexIVFPQ", "IndexIVFScalarQuantizer", "IndexPreTransform"):
        return lambda shard: faiss.index_cpu_to_gpu_multiple_py(resources, index, cloner_options(shard=shard))
    raise RecipeError(
        f"FAISS has no {kind} on graphics cards; use one of the recipes gpu-flat, gpu-ivf-pq and cagra, a factory "
        "string of Flat, SQfp16, IVF...,Flat or IVF...,PQ with codes of 8 bits, or device cpu"
    )


def cloner_options(*, shard: bool) -> Any:
    """Say how an index is copied to cards: float16 where it holds whole vectors, and in parts or not.

    Args:
        shard: Whether each card gets a part.

    Returns:
        `GpuMultipleClonerOptions`.
    """
    faiss = load_faiss()
    options = faiss.GpuMultipleClonerOptions()
    options.useFloat16 = True
    options.useFloat16CoarseQuantizer = False
    # Tables of the products of codes and centroids gain nothing for inner products, and fill the card.
    options.usePrecomputed = False
    options.indicesOptions = faiss.INDICES_64_BIT
    options.shard = shard
    return options


def _flat(index: Any, resources: list[Any], *, shard: bool) -> Any:
    """Whole vectors in float16, decoded piece by piece so that they are never in memory together as float32."""
    faiss = load_faiss()
    count = len(resources)
    bounds = np.linspace(0, index.ntotal, count + 1).astype(int) if shard else np.array([0, index.ntotal])
    made = []
    for gpu, resource in enumerate(resources):
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16, config.device = True, gpu
        part = faiss.GpuIndexFlatIP(resource, index.d, config)
        first, last = (bounds[gpu], bounds[gpu + 1]) if shard else bounds
        for start in range(int(first), int(last), _CHUNK):
            part.add(index.reconstruct_n(start, min(_CHUNK, int(last) - start)))
        made.append(part)
    if count == 1:
        return made[0]
    # Positions of a shard follow those of the one before.
    joined = faiss.IndexShards(index.d, True, True) if shard else faiss.IndexReplicas(index.d, True)
    for part in made:
        (joined.add_shard if shard else joined.add_replica)(part)
    # The parts are Python's, and have to live as long.
    joined.parts = made
    return joined


def _first_that_fits(copy: Callable[[bool], Any], count: int, spread: Spread) -> tuple[Any, str]:
    """Copy to the cards: whole, or in parts where one card cannot hold all."""
    ways = {"auto": (False, True), "replicas": (False,), "shards": (True,)}[spread][: None if count > 1 else 1]
    message = ""
    for shard in ways:
        try:
            return copy(shard), "shards" if shard and count > 1 else "replicas"
        except RuntimeError as error:
            message = reason(error)
            # FAISS speaks of shared memory where a code is too long, which another card would not mend.
            if "memory" not in message.lower() or "shared memory" in message.lower():
                raise RecipeError(
                    f"FAISS refuses this index for graphics cards: {message}; build gpu-flat or gpu-ivf-pq for them"
                ) from error
    raise EnvironmentConflictError(
        f"the index does not fit the memory of {count} graphics card(s): {message}; "
        "use a recipe of shorter codes such as gpu-ivf-pq, more cards, or one for device cpu"
    )


def _parts(index: Any) -> Iterator[Any]:
    """The indexes with lists that an index on cards is made of."""
    faiss = load_faiss()
    index = faiss.downcast_index(index)
    if hasattr(index, "nprobe"):
        yield index
    elif type(index).__name__ == "IndexPreTransform":
        yield from _parts(index.index)
    elif hasattr(index, "count") and hasattr(index, "at"):
        for i in range(index.count()):
            yield from _parts(index.at(i))


@contextmanager
def trained_on_gpu(lists: Any | None) -> Iterator[None]:
    """Let cards assign vectors to centroids while an index with lists is trained, which is nearly all the work.

    Args:
        lists: The index with lists, downcast; None where there is none, which changes nothing.

    Yields:
        Nothing.

    Raises:
        EnvironmentConflictError: There is no card.
    """
    faiss = load_faiss()
    require_gpu_support()
    if lists is None:
        yield
        return
    helper = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(lists.d))
    lists.clustering_index = helper
    try:
        yield
    finally:
        lists.clustering_index = None


def build_cagra(vectors: Float32Array, *, degree: int) -> Any:
    """Build a graph on a card and turn it into one that any FAISS searches.

    Args:
        vectors: All of them, shape (n, dim), float32.
        degree: Neighbours of each vector in the lowest layer.

    Returns:
        An `IndexHNSWCagra` with its upper layers; position i holds row i.

    Raises:
        EnvironmentConflictError: There is no card, or no cuVS.
    """
    faiss = load_faiss()
    require_gpu_support(cagra=True)
    dim = vectors.shape[1]
    config = faiss.GpuIndexCagraConfig()
    config.graph_degree, config.intermediate_graph_degree = degree, 2 * degree
    made = faiss.GpuIndexCagra(faiss.StandardGpuResources(), dim, faiss.METRIC_INNER_PRODUCT, config)
    made.train(vectors)
    graph = faiss.IndexHNSWCagra(dim, degree // 2, faiss.METRIC_INNER_PRODUCT)
    graph.base_level_only = False
    made.copyTo(graph)
    return graph
