"""What a FAISS index is made of, and what that means for training, effort and filters.

FAISS nests indexes: ids around a transform around a refinement around the part that searches. Search parameters have to
be nested the same way, each layer with its own class. A layer that is given the wrong class says so, or ignores the
selector without a word: a refinement does so with a selector of its own, a transform likewise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mmalign.errors import RecipeError
from mmalign.index.base import FilterSupport
from mmalign.index.faiss.library import load_faiss

Core: TypeAlias = Literal["scan", "ivf", "ivf-opaque", "hnsw", "opaque"]
"""The innermost layer: `scan` compares with every code and can skip, `opaque` takes no parameters at all."""


@dataclass(frozen=True, slots=True)
class IndexStructure:
    """The layers of a FAISS index.

    Attributes:
        wrappers: From the outside in: `transform` or `refine`.
        core: What kind of index is inside.
        lists: Number of inverted lists, 0 where there are none.
        default_effort: nprobe, efSearch or k_factor that suits the index; None where effort means nothing.
        filter_support: How it filters.
        min_selectivity: Share of allowed rows below which an exact search of the allowed vectors is the better choice.
        exact_scores: Whether scores are inner products with the vectors, right to about 1e-3.
        exhaustive: Whether every vector is compared with, and by its true score.
    """

    wrappers: tuple[str, ...]
    core: Core
    lists: int
    default_effort: int | None
    filter_support: FilterSupport
    min_selectivity: float
    exact_scores: bool
    exhaustive: bool

    @property
    def refines(self) -> bool:
        """Whether candidates are compared again with better codes."""
        return "refine" in self.wrappers

    @property
    def effort_name(self) -> str | None:
        """FAISS's name for the effort, or None where effort means nothing."""
        if self.core == "hnsw":
            return "efSearch"
        if self.lists:
            return "nprobe"
        return "k_factor" if self.refines else None


def index_structure(index: Any) -> IndexStructure:
    """Describe a FAISS index.

    Args:
        index: Any `faiss.Index` of floats, without an id map around it.

    Returns:
        Its anatomy.
    """
    faiss = load_faiss()
    wrappers = []
    inner = index
    for inner in _layers(index):
        if isinstance(inner, faiss.IndexPreTransform):
            wrappers.append("transform")
        elif isinstance(inner, faiss.IndexRefine):
            wrappers.append("refine")
    core, lists = _core(inner)
    effort: int | None = None
    if core == "hnsw":
        effort = 64
    elif lists:
        effort = min(lists, max(8, math.ceil(lists / 16)))
    elif "refine" in wrappers:
        effort = 8
    support: FilterSupport = "exact" if core == "scan" else "selector" if core in ("ivf", "hnsw") else "none"
    # Lists lose recall; a graph's search, and fetching in vain, cost more the fewer rows are allowed.
    min_selectivity = {"scan": 0.0, "ivf": 0.01}.get(core, 0.1)
    if core == "hnsw" and scannable(index) is not None:
        min_selectivity = 0.0
    return IndexStructure(
        wrappers=tuple(wrappers),
        core=core,
        lists=lists,
        default_effort=effort,
        filter_support=support,
        min_selectivity=min_selectivity,
        exact_scores=_scores_truly(index),
        exhaustive=core == "scan" and "transform" not in wrappers and _scores_truly(inner),
    )


def _scores_truly(index: Any) -> bool:
    faiss = load_faiss()
    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexRefine):
        return _scores_truly(layer.refine_index)
    if isinstance(layer, (faiss.IndexHNSW, faiss.IndexNSG)):
        return _scores_truly(layer.storage)
    if isinstance(layer, (faiss.IndexScalarQuantizer, faiss.IndexIVFScalarQuantizer)):
        return bool(layer.sq.qtype == faiss.ScalarQuantizer.QT_fp16)
    return isinstance(layer, (faiss.IndexFlat, faiss.IndexIVFFlat))


def _layers(index: Any) -> Iterator[Any]:
    faiss = load_faiss()
    layer = faiss.downcast_index(index)
    while True:
        yield layer
        if isinstance(layer, faiss.IndexPreTransform):
            layer = faiss.downcast_index(layer.index)
        elif isinstance(layer, faiss.IndexRefine):
            layer = faiss.downcast_index(layer.base_index)
        else:
            return


def _core(index: Any) -> tuple[Core, int]:
    faiss = load_faiss()
    if isinstance(index, faiss.IndexIVF):
        # Lists of additively quantised codes take nprobe but no selector.
        return ("ivf-opaque" if isinstance(index, faiss.IndexIVFAdditiveQuantizer) else "ivf"), int(index.nlist)
    if isinstance(index, faiss.IndexHNSW):
        return "hnsw", 0
    if isinstance(index, (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexRaBitQ)):
        return "scan", 0
    return "opaque", 0


def scannable(index: Any) -> Any | None:
    """Return the vectors that a graph or a refinement holds, as an index that compares with all and can skip.

    Args:
        index: An index without an id map around it.

    Returns:
        The index, or None where there is none, or its codes cannot be scanned with a filter.
    """
    faiss = load_faiss()
    layer = faiss.downcast_index(index)
    if isinstance(layer, faiss.IndexHNSW):
        held = faiss.downcast_index(layer.storage)
    elif isinstance(layer, faiss.IndexRefine):
        held = faiss.downcast_index(layer.refine_index)
    else:
        return None
    return held if _core(held)[0] == "scan" else None


def set_ef_construction(index: Any, effort: int) -> None:
    """Have the graph inside an index look at so many candidates for the neighbours of each vector that is added.

    FAISS writes the number into the index's file, so that what is added later is added with it too.

    Args:
        index: An index without an id map around it.
        effort: The number of candidates, at least 1; FAISS's own is 40.

    Raises:
        RecipeError: There is no graph over the vectors inside.
    """
    graph = _graph(index)
    if graph is None:
        raise RecipeError(
            f"ef_construction = {effort} is for graphs, and this index has none over its vectors; leave it out, or use "
            "a factory string with a graph, such as HNSW32,SQfp16"
        )
    graph.hnsw.efConstruction = effort


def ef_construction(index: Any) -> int | None:
    """Say at how many candidates the graph inside an index looks for the neighbours of a vector that is added.

    Args:
        index: An index without an id map around it.

    Returns:
        The number; None where there is no graph over the vectors.
    """
    graph = _graph(index)
    return None if graph is None else int(graph.hnsw.efConstruction)


def _graph(index: Any) -> Any | None:
    faiss = load_faiss()
    return next((layer for layer in _layers(index) if isinstance(layer, faiss.IndexHNSW)), None)


def widened(anatomy: IndexStructure, effort: int | None, share: float, rows: int) -> int | None:
    """Effort that keeps the recall of a filtered search near that of an unfiltered one.

    The k nearest of a share s of the rows are spread like the k / s nearest of all. A graph has to hold that many
    candidates; lists have to be probed about 1 / sqrt(s) times as deep (both measured against exact search).

    Args:
        anatomy: What is searched.
        effort: Effort without a filter.
        share: Share of rows that are allowed, above 0, at most 1.
        rows: How many rows there are.

    Returns:
        The effort to use.
    """
    if effort is None:
        return None
    if anatomy.core == "hnsw":
        return max(1, min(rows, math.ceil(effort / share)))
    if anatomy.lists:
        return min(anatomy.lists, math.ceil(effort / math.sqrt(share)))
    return effort


def max_effort(anatomy: IndexStructure, rows: int, share: float = 1.0) -> int | None:
    """Effort beyond which nothing more is found, or None where effort does not decide how much is found.

    Args:
        anatomy: What is searched.
        rows: How many rows there are.
        share: Share of rows that are allowed: the fewer, the sooner `widened` reaches everything.

    Returns:
        The effort, before `widened` adds to it.
    """
    if anatomy.core == "hnsw":
        return math.ceil(rows * share)
    return math.ceil(anatomy.lists * math.sqrt(share)) if anatomy.lists else None


def search_parameters(
    anatomy: IndexStructure, *, effort: int | None, k_factor: float, selector: Any | None
) -> Any | None:
    """Nest FAISS's search parameters as the index is nested.

    Nothing is set on the index itself, so that searches with different parameters may run at once.

    Args:
        anatomy: What is searched.
        effort: nprobe or efSearch for the core.
        k_factor: How many times k candidates a refinement compares again.
        selector: A `faiss.IDSelector`, only for a core that can skip.

    Returns:
        The parameters, or None where the index takes none.
    """
    faiss = load_faiss()
    parameters: Any | None = None
    if anatomy.lists:
        parameters = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
    elif anatomy.core == "hnsw":
        parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
    elif anatomy.core == "scan" and selector is not None:
        parameters = faiss.SearchParameters(sel=selector)
    for wrapper in reversed(anatomy.wrappers):
        if wrapper == "refine":
            parameters = faiss.IndexRefineSearchParameters(k_factor=k_factor, base_index_params=parameters)
        elif parameters is not None:
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    return parameters


def training_need(index: Any) -> int:
    """Say how many vectors an index has to be trained on at least: its largest number of centroids.

    Args:
        index: An index without an id map around it.

    Returns:
        The number; 0 where the index needs no training.
    """
    faiss = load_faiss()
    if index.is_trained:
        return 0
    centroids = 1
    for part in _parts(index):
        if isinstance(part, faiss.IndexIVF):
            centroids = max(centroids, int(part.nlist))
        if hasattr(part, "pq"):
            # A rotation holds the quantiser that it is trained with only while it is trained.
            bits = _code_bits(index) if part.pq is None else int(part.pq.nbits)
            centroids = max(centroids, 1 << bits)
        if isinstance(part, faiss.OPQMatrix):
            # With fewer vectors than dimensions FAISS aborts the process.
            centroids = max(centroids, int(part.d_in), int(part.d_out))
    return centroids


@contextmanager
def quiet_training(index: Any) -> Iterator[None]:
    """Stop FAISS from printing, while it trains, that more training vectors would be better.

    A rotation (OPQ) is lent a quantiser of the codes that follow it; FAISS's own has 256 codes, whatever follows, and
    takes many times as long to train than the 16 of 4 bits.

    Args:
        index: An index without an id map around it; its clustering parameters are changed.
    """
    faiss = load_faiss()
    lent = []
    bits = _code_bits(index)
    for part in _parts(index):
        # What a kind of index of FAISS has, its class alone says.
        for holder in (part, getattr(part, "pq", None), getattr(part, "rq", None)):
            if holder is not None and hasattr(holder, "cp"):
                holder.cp.min_points_per_centroid = 1
        if isinstance(part, faiss.OPQMatrix) and part.pq is None:
            quantizer = faiss.ProductQuantizer(part.d_out, part.M, bits)
            quantizer.cp.min_points_per_centroid = 1
            part.pq = quantizer
            lent.append((part, quantizer))
    try:
        yield
    finally:
        # The rotation holds a bare pointer, which must not outlive what it points to.
        for part, _ in lent:
            part.pq = None


def _code_bits(index: Any) -> int:
    """Bits of a code of the product quantiser inside, 8 where there is none."""
    faiss = load_faiss()
    found = [part.pq for part in _parts(index) if not isinstance(part, faiss.OPQMatrix) and hasattr(part, "pq")]
    return int(found[0].nbits) if found else 8


def _parts(index: Any) -> Iterator[Any]:
    faiss = load_faiss()
    for layer in _layers(index):
        yield layer
        if isinstance(layer, faiss.IndexPreTransform):
            for i in range(layer.chain.size()):
                yield faiss.downcast_VectorTransform(layer.chain.at(i))
        elif isinstance(layer, faiss.IndexRefine):
            yield faiss.downcast_index(layer.refine_index)
        elif isinstance(layer, faiss.IndexHNSW):
            yield faiss.downcast_index(layer.storage)
