"""The matching of phrases and regions as an optimisation: what each choice is worth.

The objective is a sum, so that every part of it can be told apart later:

    sum of u[i, j] over the regions j that each phrase i takes
    + null[i] for each region that phrase i may take and does not
    + weight * sum of w(j, l) over the relations, wherever all their phrases have regions
    - sharing[j, l] for each two phrases that are not the same thing and take the regions j and l
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import DimensionError, InputError

FloatArray = NDArray[np.float64]
Assignment = tuple[tuple[int, ...], ...]

# What a forbidden link is worth: less than anything real, and still a number that sums can be made of.
FORBIDDEN = -1e6


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """A relation between phrases, as weights of the regions that they may take.

    Attributes:
        phrases: Indices of the subject and then of the objects. The same object twice stands for two regions of one
            plural phrase, as in `between two trees`.
        weights: Shape (ways, objects, r, r), float64: `weights[z, o, j, l]` for the subject at region j and object o
            at region l. The relation is worth the sum over its objects, in the best of the ways; nothing where one of
            its phrases has no region. Most relations have one way and one object; `between` has a way for each order.
        kind: The relation, such as `left of`; `same` for two mentions of one thing.
        relation: Index among the sentence's relations, or -1 for what no relation says.
    """

    phrases: tuple[int, ...]
    weights: FloatArray
    kind: str = ""
    relation: int = -1

    def value(self, regions: Sequence[int]) -> float:
        """Give what the relation is worth, before the weight of relations, at one region for each of its phrases."""
        subject, *objects = regions
        orders = [objects, objects[::-1]] if self.one_object_twice else [objects]
        return float(
            max(sum(way[o, subject, j] for o, j in enumerate(order)) for way in self.weights for order in orders)
        )

    @property
    def one_object_twice(self) -> bool:
        """Whether both objects are regions of one plural phrase; their order means nothing then."""
        return len(self.phrases) == 3 and self.phrases[1] == self.phrases[2]

    def placements(self, assignment: Assignment) -> Iterator[tuple[int, ...]]:
        """Give each choice of regions, one for each of the relation's phrases, that an assignment holds."""
        subject, *objects = self.phrases
        if self.one_object_twice:
            for region in assignment[subject]:
                for pair in itertools.combinations(sorted(assignment[objects[0]]), 2):
                    yield region, *pair
        else:
            yield from itertools.product(*(assignment[phrase] for phrase in self.phrases))


@dataclass(frozen=True, eq=False)
class Problem:
    """Which phrase takes which region: what each choice is worth, and what is allowed.

    Attributes:
        unary: Worth of each phrase at each region, shape (p, r), finite; higher is better.
        null: Worth of leaving a phrase without a region, shape (p,); by default 0.
        capacity: How many different things may share each region, shape (r,), from 1; by default as many as there
            are phrases. Phrases of one group count once.
        takes: How many regions each phrase may take, shape (p,), from 1; by default 1. `null` counts once for each
            that it does not take.
        groups: Phrases of the same number are mentions of the same thing: they share regions for nothing. Shape (p,),
            by default all differ.
        sharing: What it costs when two different things take the regions j and l, shape (r, r), symmetric, from 0;
            a number stands for that cost on one and the same region only.
        clash: Regions that one phrase cannot both take, as they are much the same place; shape (r, r), bool.
        edges: The relations.
        weight: How much a relation counts beside a similarity, from 0 (the lambda of the objective).

    Raises:
        DimensionError: Arrays whose shapes do not fit one another.
        InputError: Values that are not finite, capacities or numbers of regions below 1, an edge that names a phrase
            that is not there.
    """

    unary: FloatArray
    null: FloatArray = None  # type: ignore[assignment]
    capacity: NDArray[np.int64] = None  # type: ignore[assignment]
    takes: NDArray[np.int64] = None  # type: ignore[assignment]
    groups: NDArray[np.int64] = None  # type: ignore[assignment]
    sharing: FloatArray = 0.0  # type: ignore[assignment]
    clash: NDArray[np.bool_] | None = None
    edges: tuple[Edge, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        unary = _floats(self.unary, "the similarities of phrases and regions")
        if unary.ndim != 2:
            raise DimensionError(f"similarities must have shape (phrases, regions), got {unary.shape}")
        p, r = unary.shape
        sharing = _floats(self.sharing, "the costs of sharing a region")
        parts: dict[str, Any] = {
            "unary": unary,
            "null": _shaped(_floats(np.zeros(p) if self.null is None else self.null, "the worths of no region"), (p,)),
            "capacity": _counts(np.full(r, max(p, 1)) if self.capacity is None else self.capacity, r, "capacity"),
            "takes": _counts(np.ones(p) if self.takes is None else self.takes, p, "takes"),
            "groups": _shaped(np.asarray(np.arange(p) if self.groups is None else self.groups, np.int64), (p,)),
            "sharing": np.eye(r) * float(sharing) if sharing.ndim == 0 else _shaped(sharing, (r, r)),
            "edges": tuple(self.edges),
        }
        if (parts["sharing"] < 0).any() or not np.allclose(parts["sharing"], parts["sharing"].T):
            raise InputError("the costs of sharing must be 0 or more, and the same both ways")
        if self.clash is not None:
            parts["clash"] = _shaped(np.asarray(self.clash, bool), (r, r)) | np.eye(r, dtype=bool)
        if not (np.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"the weight of relations must be a number from 0, got {self.weight}")
        for edge in self.edges:
            _check_edge(edge, p, r)
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of phrases and of regions."""
        p, r = self.unary.shape
        return p, r

    def forbid(self, phrase: int, region: int) -> Problem:
        """Give the same problem in which one phrase cannot take one region.

        Args:
            phrase: Index of the phrase.
            region: Index of the region.

        Returns:
            The other problem; what is forbidden is worth `FORBIDDEN`, less than any null.
        """
        unary = self.unary.copy()
        unary[phrase, region] = FORBIDDEN
        return replace(self, unary=unary)

    def strangers(self, first: int, second: int) -> bool:
        """Tell whether two phrases are different things, so that a region which both take costs something."""
        return bool(self.groups[first] != self.groups[second])

    def compatible(self, first: int, second: int) -> bool:
        """Tell whether one phrase may take both regions."""
        return first != second if self.clash is None else not bool(self.clash[first, second])

    def feasible(self, assignment: Assignment) -> bool:
        """Tell whether an assignment keeps to what is allowed.

        Args:
            assignment: The regions of each phrase.

        Returns:
            Whether no phrase takes too many regions, or two that are the same place, and no region is shared by more
            things than its capacity.
        """
        for phrase, regions in enumerate(assignment):
            pairs = itertools.combinations(regions, 2)
            if len(regions) > self.takes[phrase] or not all(self.compatible(*pair) for pair in pairs):
                return False
        things = {(int(self.groups[i]), j) for i, regions in enumerate(assignment) for j in regions}
        return all(
            sum(region == j for _, region in things) <= self.capacity[j] for j in {region for _, region in things}
        )

    def objective(self, assignment: Assignment) -> float:
        """Give the worth of an assignment, whether or not it is allowed.

        Args:
            assignment: The regions of each phrase; an empty tuple leaves it without one.

        Returns:
            The sum that the module's docstring tells.
        """
        total = 0.0
        for i, regions in enumerate(assignment):
            total += float(sum(self.unary[i, j] for j in regions))
            total += float(self.null[i]) * (int(self.takes[i]) - len(regions))
        for edge in self.edges:
            total += self.weight * sum(edge.value(regions) for regions in edge.placements(assignment))
        for i, k in itertools.combinations(range(len(assignment)), 2):
            if self.strangers(i, k):
                total -= float(sum(self.sharing[j, m] for j in assignment[i] for m in assignment[k]))
        return total


def _floats(values: ArrayLike, name: str) -> FloatArray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from error
    if not np.isfinite(array).all():
        raise InputError(
            f"{name} hold {np.count_nonzero(~np.isfinite(array))} values that are NaN or infinite; "
            "a picture or phrase was probably encoded to a zero vector: leave it out, or give its similarities"
        )
    return array


def _shaped(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape != shape:
        raise DimensionError(f"expected an array of shape {shape} for this many phrases and regions, got {array.shape}")
    return array


def _counts(values: ArrayLike, length: int, name: str) -> NDArray[np.int64]:
    array = _shaped(_floats(values, name), (length,))
    if (array < 1).any() or (array != np.floor(array)).any():
        raise InputError(
            f"{name} must be whole numbers from 1, got {array.tolist()}; leave out a region that nothing may take, "
            "and a phrase that may take nothing"
        )
    return array.astype(np.int64)


def _check_edge(edge: Edge, p: int, r: int) -> None:
    unknown = [phrase for phrase in edge.phrases if not 0 <= phrase < p]
    if unknown:
        raise InputError(
            f"the relation {edge.kind!r} names phrase {unknown[0]}, but there are {p} phrases, numbered from 0"
        )
    if not 2 <= len(edge.phrases) <= 3 or edge.phrases[0] in edge.phrases[1:]:
        raise InputError(
            f"the relation {edge.kind!r} must be said of one phrase with respect to one or two others, "
            f"got the phrases {list(edge.phrases)}"
        )
    shape = np.shape(edge.weights)
    if len(shape) != 4 or shape[0] < 1 or shape[1:] != (len(edge.phrases) - 1, r, r):
        raise DimensionError(
            f"the weights of the relation {edge.kind!r} must have shape (ways, {len(edge.phrases) - 1}, {r}, {r}), "
            f"got {shape}"
        )
    if not np.isfinite(edge.weights).all():
        raise InputError(f"the weights of the relation {edge.kind!r} hold NaN or infinity")
