"""What an index design would take for some data: memory, disk and time, worked out before anything is built."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmalign.errors import InputError, RecipeError
from mmalign.index.planning.costs import Costs, build_seconds, load_costs, search_seconds
from mmalign.index.planning.recipe import Recipe
from mmalign.index.planning.sizes import IndexLayout, size_of
from mmalign.types import Note
from mmalign.utils import memory_in_use, show_bytes, show_seconds

# An id and a tombstone for each position, which every search needs at hand.
_BESIDE = 8 + 1
# The least that a training takes, whatever the number of centroids.
_LEAST_SAMPLE = 10_000
# A build holds a chunk of vectors and what reading it takes; one on disk up to four shards of lists, and ids while they
# are compared with one another.
_CHUNK, _SHARDS, _IDS_COMPARED = 64 << 20, 1 << 30, 32
# Codes that lie in one piece are moved when they grow: the old piece and the new one are there together.
_GROWTH = 2.0
_K_FACTOR = 8
# Of how many neighbours the recall is that designs are chosen by.
_K = 10
# How far an estimate may be off before it is told.
_OFF = 1.5
_Shown = tuple[str, float, Callable[[float], str]]
# What is compared after a build: in words, from which value on, and how it is written. Of a small index, what does not
# grow with the vectors is most of its bytes, so that it counts from a size of the whole on.
_CHECKED: dict[str, _Shown] = {
    "bytes_per_vector": ("a vector on disk", 1e6, show_bytes),
    "seconds": ("to build", 1.0, show_seconds),
    "memory": ("of memory to build", 256e6, show_bytes),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an index would take.

    Attributes:
        recipe: The recipe's name.
        factory: `exact`, or the FAISS factory string.
        rows: How many vectors.
        dim: Their width.
        bytes_per_vector: On disk, all parts and ids.
        disk: Bytes on disk.
        memory: Bytes while searching, with everything in memory.
        least_memory: Bytes while searching, with all on disk that may stay there.
        build_memory: Most bytes while building, where nothing bounds it.
        least_build_memory: The same with a smaller training sample, and smaller shards where it is built on disk.
        build_seconds: How long training and filling takes; None where no such machine was measured.
        latency: Seconds for one query at `effort`; None where no such machine was measured.
        latency_on_disk: The same with `least_memory`.
        effort: Effort that the latency is for; None where effort means nothing.
        recall: Recall@10 that was measured with that effort, the least of the data measured on; None where none was.
        measured: On how many vectors each of these was, in words.
    """

    recipe: str
    factory: str
    rows: int
    dim: int
    bytes_per_vector: float
    disk: int
    memory: int
    least_memory: int
    build_memory: int
    least_build_memory: int
    build_seconds: float | None
    latency: float | None
    latency_on_disk: float | None
    effort: int | None
    recall: float | None = None
    measured: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON-ready values."""
        return asdict(self)


def estimate(
    recipe: Recipe, *, rows: int, dim: int, min_recall: float = 0.95, threads: int = 1, costs: Costs | None = None
) -> Estimate:
    """Work out what an index would take.

    Args:
        recipe: The design.
        rows: How many vectors, at least 0.
        dim: Their width, at least 1.
        min_recall: Share of the true nearest that is to be found, which decides the effort where it was measured.
        threads: How many threads build.
        costs: What each step takes; None for those that come with mmalign.

    Returns:
        The estimate. Times are of the machine that `costs` was measured on.

    Raises:
        InputError: `rows` or `dim` is too small.
        RecipeError: The size of the recipe's factory string cannot be worked out.
    """
    if rows < 0 or dim < 1:
        raise InputError(f"expected rows of at least 0 and dim of at least 1, got {rows} rows of dim {dim}")
    costs = costs or load_costs()
    layout = size_of(recipe.resolve(rows=rows, dim=dim), dim)
    sample = training_sample(recipe, layout, rows=rows)
    effort = _effort(recipe, layout, min_recall)
    searched, refined, beside = layout.searched(rows), layout.refined(rows), rows * _BESIDE
    held = layout.shared + layout.code.shared if recipe.storage == "disk" else searched
    # FAISS works on copies of the sample, or parts of it, while it trains.
    training, least_training = (2 * 4.0 * count * dim for count in (sample, min(sample, layout.centroids)))
    if recipe.storage == "disk":
        filled = held + rows * _IDS_COMPARED + _CHUNK
        whole, in_parts = filled + max(training, _SHARDS), filled + least_training
    else:
        filled = (1 if layout.lists else _GROWTH) * (searched + refined) + beside + _CHUNK
        whole, in_parts = filled + training, filled + least_training
    timed = recipe.device == "cpu"
    k_factor = recipe.k_factor or _K_FACTOR
    latencies = [
        search_seconds(layout, costs, rows=rows, effort=effort, k_factor=k_factor, on_disk=on_disk) if timed else None
        for on_disk in (recipe.storage == "disk", True)
    ]
    construction = recipe.ef_construction
    built = (
        build_seconds(layout, costs, rows=rows, sample=sample, threads=threads, ef_construction=construction)
        if timed
        else None
    )
    return Estimate(
        recipe=recipe.name,
        factory=layout.factory,
        rows=rows,
        dim=dim,
        bytes_per_vector=layout.size(rows) / max(rows, 1),
        disk=round(layout.size(rows)),
        memory=round(searched + refined + beside),
        least_memory=round(held + beside),
        build_memory=round(whole),
        least_build_memory=round(min(whole, in_parts)),
        build_seconds=built,
        latency=latencies[0],
        latency_on_disk=latencies[1],
        effort=effort,
        recall=_recall_at(recipe, effort),
        measured=tuple(_curves(recipe)),
    )


def training_sample(recipe: Recipe, layout: IndexLayout, *, rows: int) -> int:
    """Say how many vectors an index is trained on.

    Args:
        recipe: The design.
        layout: Its parts.
        rows: How many vectors there are.

    Returns:
        The number; 0 where nothing is trained.
    """
    if not layout.centroids:
        return 0
    return min(rows, max(_LEAST_SAMPLE, recipe.vectors_per_centroid * layout.centroids))


def reached(recipe: Recipe) -> float | None:
    """Say what recall@10 a design reached where it was measured.

    Args:
        recipe: The design, with the `measured` tables that `mmalign bench index` wrote.

    Returns:
        The largest on the data where that was smallest; None where nothing was measured.
    """
    most = [max(recall for _, recall in curve) for curve in _curves(recipe).values()]
    return min(most, default=None)


def _effort(recipe: Recipe, layout: IndexLayout, min_recall: float) -> int | None:
    """Least effort that met a recall on each data that it was measured on, else the default."""
    curves = _curves(recipe).values()
    enough = [[effort for effort, recall in curve if recall >= min_recall and effort] for curve in curves]
    if enough and all(enough):
        return max(map(min, enough))
    if recipe.default_effort is not None:
        return recipe.default_effort
    if layout.lists:
        return min(layout.lists, max(8, math.ceil(layout.lists / 16)))
    return 64 if layout.graph else 8 if layout.refine else None


def _recall_at(recipe: Recipe, effort: int | None) -> float | None:
    """The recall of the largest effort measured that is not above this one, on the data where it was smallest."""
    found = []
    for curve in _curves(recipe).values():
        known = [(measured, recall) for measured, recall in curve if measured <= (effort or 0)]
        if not known:
            return None
        found.append(max(known)[1])
    return min(found, default=None)


def _curves(recipe: Recipe) -> dict[str, list[tuple[int, float]]]:
    """Effort, 0 where there is none, and recall@10, by the data that they were measured on."""
    found: dict[str, list[tuple[int, float]]] = {}
    for table in recipe.measured:
        efforts, recalls = table.get("efforts"), table.get("recall")
        # Recall of another number of neighbours is another figure.
        if table.get("k") != _K or not isinstance(efforts, list) or not isinstance(recalls, list) or not recalls:
            continue
        points = [(int(effort), float(recall)) for effort, recall in zip(efforts, recalls, strict=False)]
        found.setdefault(str(table.get("data", "")), []).extend(points)
    return found


class Meter:
    """Keeps what a build was estimated to take beside what it takes, from its making on.

    Args:
        recipe: What is built; a design whose size is not known has no estimate.
        rows: How many vectors.
        dim: Their width.
        threads: How many threads build.

    Attributes:
        estimated: By the names of `IndexManifest.estimate`: `bytes_per_vector`, `seconds`, `memory`.
    """

    def __init__(self, recipe: Recipe, *, rows: int, dim: int, threads: int) -> None:
        self._started = time.perf_counter()
        self._before, self._highest = memory_in_use()
        self.estimated: dict[str, float] = {}
        try:
            found = estimate(recipe, rows=rows, dim=dim, threads=threads)
        except RecipeError:
            return
        self.estimated = {"bytes_per_vector": found.bytes_per_vector, "memory": found.build_memory}
        if found.build_seconds is not None:
            self.estimated["seconds"] = found.build_seconds

    def taken(self) -> dict[str, float]:
        """Say what it took until now.

        Returns:
            `seconds`, and `memory` where this process never held more before: the peak is of its whole life.
        """
        figures: dict[str, float] = {"seconds": time.perf_counter() - self._started}
        _, highest = memory_in_use()
        if highest is not None and self._highest is not None and self._before is not None and highest > self._highest:
            figures["memory"] = float(highest - self._before)
        return figures


def check_estimate(estimated: Mapping[str, float], taken: Mapping[str, float], *, rows: int) -> list[Note]:
    """Compare what a build took with what it was estimated to take.

    Args:
        estimated: Name to value, as a manifest holds it.
        taken: The same; names that are missing from either are passed over.
        rows: How many vectors the index was built over.

    Returns:
        A sentence for each that is off by more than 1.5 times; indexes below a megabyte, times below a second, and
        memory below what any process needs, are too small to tell.
    """
    notes = []
    for name, (label, least, show) in _CHECKED.items():
        foreseen, found = estimated.get(name), taken.get(name)
        whole = rows if name == "bytes_per_vector" else 1
        if not foreseen or not found or whole * max(foreseen, found) < least:
            continue
        ratio = found / foreseen
        if ratio > _OFF or ratio < 1 / _OFF:
            off = f"the index took {show(found)} {label}, {ratio:.2g} times the estimate of {show(foreseen)}"
            notes.append(Note(off, about="index"))
    return notes
