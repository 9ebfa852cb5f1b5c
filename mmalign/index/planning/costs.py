"""How long building and searching an index takes, estimated from what a machine was measured to need for each step.

`python -m benchmarks.index_costs` measures the steps and writes `indexes/costs.json`. An estimate adds up the steps of
a build or a search; it is right to a factor of two or three on the machine that was measured, and says on other ones
what takes longer than what.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from mmalign.errors import RecipeError
from mmalign.index.planning.sizes import Code, IndexLayout

_PACKAGE = "mmalign.recipes"
_FILE = "costs.json"
# FAISS's own: rounds of k-means for lists, codes and rotations, and the most vectors it takes for each centroid.
# The effort with which a graph over centroids is searched.
_LIST_ROUNDS, _CODE_ROUNDS, _ROTATION_ROUNDS = 10, 25, 50
_MOST_PER_CENTROID = 256
_COARSE_EFFORT = 16
_LINKS = 32
# A step in a graph looks at about so many vectors that were not seen yet; FAISS builds one with this efConstruction.
SEEN, BUILD_EFFORT = 16, 40
# How building grows with efConstruction. 200 took 5.6 times as long as 40, and 100 2.7 times, over 20,000 made-up
# vectors in clusters; 3.3 and 1.8 times over 50,000 grown from embeddings of pictures (HNSW32,SQfp16, dim 384). This is
# between the two.
_BUILD_GROWTH = 0.9
# Bytes that a processor keeps close at hand.
_CACHE = 32 << 20
_K = 10


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one thread for each step.

    Attributes:
        machine: Where they were measured.
        date: When.
        commit: With which version of mmalign.
        call: A search of an index that holds next to nothing.
        multiply: A multiplication and addition within a product of large matrices.
        project: The same within the product of a matrix and one vector.
        fetch: A vector somewhere in memory that no cache holds.
        graph: Width 1 of a vector that a graph's search looks at, for a graph of 32 links; times effort.
        link: Width 1 of a vector that is added to a graph of 32 links, with efConstruction 40; times the logarithm to
            base 2 of its size.
        refine: Width 1 of a candidate that is compared again.
        read: A page that has to be read from disk, somewhere in a file.
        probe: A list that is looked in, beside its codes, by kind of code.
        scan: Width 1 of a code that is compared with, by kind of code.
        encode: Width 1 of a vector that is coded and added, by kind of code.
    """

    machine: str
    date: str
    commit: str
    call: float
    multiply: float
    project: float
    fetch: float
    graph: float
    link: float
    refine: float
    read: float
    probe: Mapping[str, float]
    scan: Mapping[str, float]
    encode: Mapping[str, float]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Costs:
        """Read what the command wrote.

        Args:
            values: Name to value; names that are not known here are passed over.

        Raises:
            RecipeError: A value is missing.
        """
        try:
            return cls(**{one.name: values[one.name] for one in fields(cls)})
        except (KeyError, TypeError) as error:
            raise RecipeError(f"{_FILE} lacks {error}; measure again with: python -m benchmarks.index_costs") from error


@cache
def load_costs() -> Costs:
    """Return the costs that come with mmalign.

    Raises:
        RecipeError: The file is damaged.
    """
    try:
        values = json.loads((resources.files(_PACKAGE) / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{_FILE} cannot be read: {error}; install mmalign again") from error
    return Costs.from_dict(values)


def search_seconds(
    layout: IndexLayout,
    costs: Costs,
    *,
    rows: int,
    effort: int | None,
    k_factor: int = 1,
    on_disk: bool = False,
) -> float:
    """Estimate how long one query for ten neighbours takes, on one thread.

    Args:
        layout: The index.
        costs: What each step takes.
        rows: How many vectors.
        effort: nprobe, efSearch or k_factor, whichever the index has; None where it has none.
        k_factor: How many times k candidates are compared again, where effort is something else.
        on_disk: Whether the refinement's vectors, or the lists where there is no refinement, have to be read from disk.

    Returns:
        Seconds.
    """
    width = layout.code.width
    total = costs.call + costs.project * width * layout.dim * bool(layout.transform)
    scanned = float(rows)
    if layout.lists:
        probed = min(effort or 1, layout.lists)
        scanned = rows * probed / layout.lists
        total += _nearest_lists(layout, costs) + probed * cost_of(costs.probe, layout.code)
        if on_disk and layout.refine is None:
            total += costs.read * (probed + scanned * layout.code.size / 4096 / 32)
    if layout.graph:
        looked = costs.graph * width + SEEN * cache_miss_share(layout.searched(rows)) * costs.fetch
        total += looked * (effort or 1) * layout.graph / _LINKS
    else:
        total += scanned * width * cost_of(costs.scan, layout.code)
    if layout.refine is not None:
        again = min(rows, _K * (k_factor if layout.lists or layout.graph else effort or 1))
        fetched = costs.read if on_disk else cache_miss_share(layout.refined(rows)) * costs.fetch
        total += again * (layout.dim * costs.refine + fetched)
    return total


def build_seconds(
    layout: IndexLayout, costs: Costs, *, rows: int, sample: int, threads: int = 1, ef_construction: int | None = None
) -> float:
    """Estimate how long an index takes to train and to fill.

    Args:
        layout: The index.
        costs: What each step takes.
        rows: How many vectors.
        sample: How many it is trained on.
        threads: How many threads share the work.
        ef_construction: How many candidates a graph looks at for the neighbours of each vector; None for FAISS's own.

    Returns:
        Seconds.
    """
    width, code = layout.code.width, layout.code
    work = rows * width * cost_of(costs.encode, code)
    if layout.refine is not None:
        work += rows * layout.dim * cost_of(costs.encode, layout.refine)
    if layout.transform:
        work += rows * width * layout.dim * costs.multiply
    if layout.transform in ("PCA", "OPQ"):
        work += (sample * layout.dim + 10 * layout.dim**2) * layout.dim * costs.multiply
    if layout.transform == "OPQ":
        # Each round goes four times towards better codes, and turns the space towards them by one decomposition.
        taken = min(sample, _MOST_PER_CENTROID * 256)
        work += _ROTATION_ROUNDS * width * (taken * (5 * code.centroids + 2 * width) + 10 * width**2) * costs.multiply
    if layout.lists:
        taken = min(sample, _MOST_PER_CENTROID * layout.lists)
        work += _LIST_ROUNDS * taken * layout.lists * width * costs.multiply
        if layout.coarse_graph:
            work += rows * _nearest_lists(layout, costs)
        else:
            work += rows * layout.lists * width * costs.multiply
    if code.kind.startswith("PQ"):
        taken = min(sample, _MOST_PER_CENTROID * code.centroids)
        work += _CODE_ROUNDS * taken * code.centroids * width * costs.multiply
    if layout.graph:
        fetched = BUILD_EFFORT * SEEN * cache_miss_share(layout.searched(rows)) * costs.fetch
        linked = width * math.log2(max(2, rows)) * costs.link + fetched
        effort = (ef_construction or BUILD_EFFORT) / BUILD_EFFORT
        work += rows * linked * effort**_BUILD_GROWTH * layout.graph / _LINKS
    return work / threads


def cache_miss_share(size: float) -> float:
    """Say which share of looks at random places finds them in no cache.

    Args:
        size: Of what is looked at, in bytes.

    Returns:
        From 0 to 1.
    """
    return 1 - min(1.0, _CACHE / max(size, 1.0))


def cost_of(table: Mapping[str, float], code: Code) -> float:
    """The cost of a kind of code; of the dearest where this kind was not measured.

    Args:
        table: By kind of code.
        code: The code.
    """
    return table.get(code.kind, max(table.values()))


def _nearest_lists(layout: IndexLayout, costs: Costs) -> float:
    """Seconds to find which lists to look in."""
    width = layout.code.width
    if layout.coarse_graph:
        return costs.graph * width * _COARSE_EFFORT * layout.coarse_graph / _LINKS
    return layout.lists * width * costs.scan["Flat"]
