"""What an alignment gives: which phrase belongs where, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.alignment.problem import Problem
from mmalign.alignment.solvers import Solution
from mmalign.types import Phrase, Region, Relation


@dataclass(frozen=True, slots=True)
class Link:
    """A phrase and a region that belong together.

    Attributes:
        phrase: Index of the phrase.
        region: Index of the region.
        score: Probability of this region among all and none, given where the other phrases are, 0 to 1.
    """

    phrase: int
    region: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the link as JSON-ready values."""
        return {"phrase": self.phrase, "region": self.region, "score": self.score}


@dataclass(frozen=True, eq=False)
class Alignment:
    """Which phrases of a sentence belong to which regions of a picture.

    Attributes:
        sentence: The sentence.
        phrases: Its phrases.
        regions: The picture's regions.
        relations: What the sentence says of the phrases' places.
        links: Phrases and the regions that they got, by phrase; a plural phrase may have several.
        matrix: Shape (p, r), float32, 0 to 1: probability of each region for each phrase among all regions and none,
            given where the other phrases are. A row sums to 1 less the probability of none.
        unmatched_phrases: Indices of the phrases that got none.
        objective: Worth of the links, as `Problem.objective` has it.
        solver: The solver.
        bound: No links are worth more, or None where the solver does not say.
        converged: Whether the solver came to its end.
        notes: Remarks that a person should see.
        problem: What was solved.
        solution: What the solver said.
    """

    sentence: str
    phrases: tuple[Phrase, ...]
    regions: tuple[Region, ...]
    relations: tuple[Relation, ...]
    links: tuple[Link, ...]
    matrix: NDArray[np.float32] = field(repr=False)
    unmatched_phrases: tuple[int, ...]
    objective: float
    solver: str
    bound: float | None
    converged: bool
    notes: tuple[str, ...] = ()
    problem: Problem = field(repr=False, kw_only=True)
    solution: Solution = field(repr=False, kw_only=True)
