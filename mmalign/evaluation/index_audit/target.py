"""What an audit has to know of a database: its vectors, how it searches, and what can be turned up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import FilterError, InputError
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array

Key: TypeAlias = Hashable
"""What a database calls a row: a number, a text, a UUID."""
Keys: TypeAlias = "Sequence[Key] | Int64Array"
Metric: TypeAlias = Literal["cosine", "ip", "l2"]
"""Cosine of the angle, inner product, or Euclidean distance."""

# A filter that names rows one by one names no more than these.
MOST_NAMED = 20_000


@dataclass(frozen=True, slots=True)
class SearchMode:
    """One way to search, with a number that says how hard to look.

    Attributes:
        knob: The engine's name for the number, such as `nprobe`; empty where there is none.
        values: What may be tried, rising.
        default: What the database does when nobody says anything, as far as it is known; it is asked without the knob.
        fixed: What else is set in this mode.
    """

    knob: str = ""
    values: tuple[int, ...] = (1,)
    default: int = 1
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def setting(self, effort: int) -> dict[str, Any]:
        """Say what a person would set for an effort."""
        return {**self.fixed, **({self.knob: effort} if self.knob else {})}

    def parameters(self, effort: int) -> dict[str, Any]:
        """Say what is sent: as `setting`, but nothing for what the database does by itself."""
        return dict(self.fixed) if effort == self.default else self.setting(effort)


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Rows that a search may find.

    Attributes:
        text: For a person.
        native: What the engine's search takes.
        keys: The rows, as the database itself names them when it is asked for them without a vector.
    """

    text: str
    native: Any
    keys: Keys


class AuditTarget(ABC):
    """A database or an index file; a subclass an engine.

    Attributes:
        engine: The engine's name.
        version: Of its library or server; empty where it is not known.
        name: What is measured, for a person; no passwords.
        index: What kind of index it is, for a person.
        rows: How many vectors there are.
        dim: Their width.
        metric: By what the nearest are the nearest.
        batches: Whether several queries can be asked in one call.
        sealed: Whether `read` knows only the keys, and gives zeros for vectors, which then have to be given.
        lossy: Whether `read` gives what is left of the vectors after compression, and not what was put in.
        notes: What was noticed.
    """

    engine: ClassVar[str]
    version: str = ""
    name: str
    index: str
    rows: int
    dim: int
    metric: Metric
    batches: bool = True
    sealed: bool = False
    lossy: bool = False

    def __init__(self) -> None:
        self.notes: list[Note] = []

    @abstractmethod
    def read(self, batch: int) -> Iterator[tuple[Keys, NDArray[Any]]]:
        """Read all vectors.

        Args:
            batch: About how many at once.

        Yields:
            Keys and vectors, the latter floats of shape (n, dim).
        """

    @abstractmethod
    def search(
        self, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None
    ) -> Sequence[Keys] | Int64Array:
        """Search as a user of the database would.

        Args:
            queries: Shape (q, dim).
            k: How many hits.
            parameters: What a `SearchMode` gave.
            where: A filter's `native`; None for all rows.

        Returns:
            The keys of the hits of each query, best first; fewer than k where the engine finds fewer.
        """

    @abstractmethod
    def modes(self, k: int, *, filtered: bool) -> Sequence[SearchMode]:
        """Say how it can be searched.

        Args:
            k: How many hits will be asked for.
            filtered: Whether with a filter.

        Returns:
            One or more modes; the first is that in which it is searched when nobody says anything.
        """

    def filter(self, text: str) -> RowFilter:
        """Understand a filter in the database's own language.

        Args:
            text: The filter.

        Returns:
            The filter, with the rows that it lets through.

        Raises:
            FilterError: It is not understood, or there is nothing to filter by.
        """
        raise FilterError(f"{self.engine} files hold vectors alone, so that there is nothing to filter by: {text!r}")

    @abstractmethod
    def random_filter(self, share: float, keys: Keys, rng: np.random.Generator) -> RowFilter:
        """Make a filter that has nothing to do with what the vectors are about.

        Args:
            share: About what share of the rows it should let through, above 0 and below 1.
            keys: Those of all rows.
            rng: What to draw with.

        Returns:
            The filter.

        Raises:
            FilterError: There is none for so many rows.
        """

    def explain(self, query: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None) -> str:
        """Say how the engine would answer, in its own words; empty where it does not tell."""
        return ""

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Let go of files and connections."""


def draw_keys(share: float, keys: Keys, rng: np.random.Generator, *, most: int | None = None) -> list[Key]:
    """Draw rows at random.

    Args:
        share: What share of the rows.
        keys: Those of all rows.
        rng: What to draw with.
        most: How many at most.

    Returns:
        The keys of the rows drawn.

    Raises:
        FilterError: More than `most`.
    """
    count = max(1, round(share * len(keys)))
    if most is not None and count > most:
        raise FilterError(
            f"a filter of {share:.2%} at random would have to name {count:,} rows one by one; give a filter of your "
            "own (--filter), or a smaller share (--share)"
        )
    chosen = np.sort(rng.choice(len(keys), count, replace=False))
    return [one.item() if isinstance(one, np.generic) else one for one in (keys[i] for i in chosen)]


def ladder(first: int, last: int) -> tuple[int, ...]:
    """Efforts that rise by about the square root of two, both ends among them.

    Args:
        first: The least, at least 1.
        last: The largest.

    Returns:
        The efforts; `last` alone where it is not above `first`.
    """
    efforts, effort = {last}, float(max(1, first))
    while effort < last:
        efforts.add(round(effort))
        effort *= 2**0.5
    return tuple(sorted(efforts))


def with_default(values: Sequence[int], default: int) -> tuple[int, ...]:
    """Efforts to try and the default among them, rising."""
    return tuple(sorted({*values, default}))


def check_metric(metric: str) -> Metric:
    """Return a metric under its one name.

    Args:
        metric: cosine, ip (dot, inner product) or l2 (euclid), in any case.

    Returns:
        `cosine`, `ip` or `l2`.

    Raises:
        InputError: Another one.
    """
    names: dict[str, Metric] = {"cosine": "cosine", "ip": "ip", "dot": "ip", "l2": "l2", "euclid": "l2"}
    found = names.get(metric.lower())
    if found is None:
        raise InputError(f"an audit measures by cosine, ip or l2, not by {metric!r}")
    return found
