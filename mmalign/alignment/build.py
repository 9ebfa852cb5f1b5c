"""From what a solver found to an alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmalign.alignment.link import Link
from mmalign.alignment.result import Alignment
from mmalign.matching import Problem, Solution, link_marginals
from mmalign.parsing import Parsed
from mmalign.types import Note, Region


def build_alignment(
    parsed: Parsed,
    regions: Sequence[Region],
    problem: Problem,
    solution: Solution,
    *,
    notes: Sequence[Note],
    **fields: Any,
) -> Alignment:
    """Make an alignment of a solution.

    Args:
        parsed: The sentence and its phrases.
        regions: The regions.
        problem: What was solved.
        solution: What the solver found.
        notes: Remarks that a person should see.
        fields: Further attributes of `Alignment`, such as `heat` and `seconds`.

    Returns:
        The alignment.
    """
    matrix = link_marginals(problem, solution)
    links = tuple(Link(i, j, float(matrix[i, j])) for i, taken in enumerate(solution.assignment) for j in taken)
    all_notes = [*notes]
    if not solution.converged:
        all_notes.append(
            Note(f"the search stopped at its limit; other links can be better by {solution.gap:.3g} at most")
        )
    if not solution.feasible:
        all_notes.append(Note(f"{solution.solver} gave a region to more phrases than it may hold"))
    return Alignment(
        sentence=parsed.sentence,
        phrases=tuple(parsed.phrases),
        regions=tuple(regions),
        relations=tuple(parsed.relations),
        links=links,
        matrix=matrix,
        unmatched_phrases=tuple(i for i, taken in enumerate(solution.assignment) if not taken),
        objective=solution.objective,
        solver=solution.solver,
        bound=solution.bound,
        converged=solution.converged,
        notes=tuple(all_notes),
        problem=problem,
        solution=solution,
        **fields,
    )
