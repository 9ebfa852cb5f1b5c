"""Why an alignment is as it is: the terms of its objective, told apart, and what else there would have been."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mmalign.matching import FORBIDDEN, Assignment, Problem, Solution, solve
from mmalign.types import Box, Phrase, Relation, gives_json

TermKind = Literal["similarity", "none", "relation", "mention", "sharing"]


@dataclass(frozen=True, slots=True)
class ObjectiveTerm:
    """One summand of the objective.

    Attributes:
        kind: `similarity` of a phrase and a region, `none` for each region that a phrase may take and does not,
            `relation` of phrases, `mention` for two phrases of one thing, `sharing` of a place by two things (from 0
            down).
        phrases: Indices of the phrases that it belongs to, in equal shares.
        regions: Indices of their regions, one for each phrase; empty for `none`.
        value: What it adds to the objective, in nats.
        relation: Index of the sentence's relation, or -1.
        says: The relation, such as `left of`; else empty.
    """

    kind: TermKind
    phrases: tuple[int, ...]
    regions: tuple[int, ...]
    value: float
    relation: int = -1
    says: str = ""

    @property
    def share(self) -> float:
        """What each of its phrases gets of it: the shares of all phrases add up to the objective."""
        return self.value / len(self.phrases)


@dataclass(frozen=True, slots=True)
class Alternative:
    """What the best alignment would be if one choice were not allowed.

    Attributes:
        without: The region that the phrase is kept from; None where it is kept from matching nothing.
        instead: The regions that it would take.
        loss: How much less the whole alignment would be worth, in nats; 0 or a little below where another alignment
            is as good.
        moved: Indices of the other phrases that would take other regions than now.
        terms: The same alignment's summands, which add up to its worth.
    """

    without: int | None
    instead: tuple[int, ...]
    loss: float
    moved: tuple[int, ...]
    terms: tuple[ObjectiveTerm, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a phrase got its regions, or none.

    Attributes:
        phrase: Index of the phrase.
        regions: The regions that it got.
        terms: The summands of the objective that it has a part in.
        similarity: What its similarities add, in nats.
        relations: Its shares of the relations and mentions.
        sharing: Its shares of the costs of shared places, from 0 down.
        none: What it adds for the regions that it may take and does not.
        null: What it would add if it matched nothing.
        total: The sum of the four; over all phrases these add up to the objective.
        alternatives: What would be without each of its regions; without matching nothing, where it has none.
        text: The same in words.
    """

    phrase: int
    regions: tuple[int, ...]
    terms: tuple[ObjectiveTerm, ...]
    similarity: float
    relations: float
    sharing: float
    none: float
    null: float
    total: float
    alternatives: tuple[Alternative, ...]
    text: str

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON-ready values."""
        return asdict(self)


def split_objective(problem: Problem, assignment: Assignment) -> tuple[ObjectiveTerm, ...]:
    """Tell the summands of the objective apart.

    Args:
        problem: What each choice is worth.
        assignment: The regions of each phrase.

    Returns:
        The terms, by phrase, then the relations, then the shared places; their values add up to
        `problem.objective(assignment)`.
    """
    terms: list[ObjectiveTerm] = []
    for i, regions in enumerate(assignment):
        terms += [ObjectiveTerm("similarity", (i,), (j,), float(problem.unary[i, j])) for j in regions]
        free = int(problem.takes[i]) - len(regions)
        if free:
            terms.append(ObjectiveTerm("none", (i,), (), float(problem.null[i]) * free))
    for edge in problem.edges:
        kind: TermKind = "mention" if edge.kind == "same" and edge.relation < 0 else "relation"
        terms += [
            ObjectiveTerm(kind, edge.phrases, places, problem.weight * edge.value(places), edge.relation, edge.kind)
            for places in edge.placements(assignment)
        ]
    for i, k in itertools.combinations(range(len(assignment)), 2):
        if problem.strangers(i, k):
            terms += [
                ObjectiveTerm("sharing", (i, k), (j, m), -float(problem.sharing[j, m]))
                for j in assignment[i]
                for m in assignment[k]
                if problem.sharing[j, m] > 0
            ]
    return tuple(terms)


def explain_phrase(
    problem: Problem,
    solution: Solution,
    phrase: int,
    *,
    phrases: Sequence[Phrase],
    relations: Sequence[Relation],
    boxes: Sequence[Box] | None = None,
) -> Explanation:
    """Say why a phrase got its regions, and what would be without each of them.

    Args:
        problem: What was solved.
        solution: What the solver said.
        phrase: Index of the phrase.
        phrases: The phrases, for the words.
        relations: The relations, for the words.
        boxes: Where the regions are, for the words; None to call them by their indices.

    Returns:
        The explanation. For each alternative the whole problem is solved again, by the same solver.
    """
    terms = split_objective(problem, solution.assignment)
    own = tuple(term for term in terms if phrase in term.phrases)
    parts = dict.fromkeys(("similarity", "none", "relation", "mention", "sharing"), 0.0)
    for term in own:
        # A plural phrase may be in one term twice, as in `between two trees`.
        parts[term.kind] += term.share * term.phrases.count(phrase)
    regions = solution.assignment[phrase]
    alternatives = tuple(_alternative(problem, solution, phrase, region) for region in regions or (None,))
    explanation = Explanation(
        phrase=phrase,
        regions=regions,
        terms=own,
        similarity=parts["similarity"],
        relations=parts["relation"] + parts["mention"],
        sharing=parts["sharing"],
        none=parts["none"],
        null=float(problem.null[phrase]) * int(problem.takes[phrase]),
        total=sum(parts.values()),
        alternatives=tuple(alternative for alternative in alternatives if alternative is not None),
        text="",
    )
    return replace(explanation, text=_in_words(explanation, phrases, relations, boxes))


def _alternative(problem: Problem, solution: Solution, phrase: int, region: int | None) -> Alternative | None:
    if region is not None:
        other = problem.forbid(phrase, region)
    elif problem.shape[1]:
        null = problem.null.copy()
        null[phrase] = FORBIDDEN
        other = replace(problem, null=null)
    else:
        return None
    assignment = solve(other, solver=solution.solver).assignment
    return Alternative(
        without=region,
        instead=assignment[phrase],
        loss=solution.objective - problem.objective(assignment),
        moved=tuple(
            index
            for index, (now, then) in enumerate(zip(solution.assignment, assignment, strict=True))
            if index != phrase and set(now) != set(then)
        ),
        terms=split_objective(problem, assignment),
    )


def _in_words(
    explanation: Explanation, phrases: Sequence[Phrase], relations: Sequence[Relation], boxes: Sequence[Box] | None
) -> str:
    name = f"{phrases[explanation.phrase].text!r}"
    where = _named(explanation.regions, boxes)
    if explanation.regions:
        lines = [f"{name} is matched to {where}."]
    else:
        lines = [f"{name} is matched to no region." if boxes is None else f"{name} is not found in the picture."]
    if explanation.regions:
        lines.append(
            f"Similarity adds {explanation.similarity:+.2f}, against {explanation.null:+.2f} if it matched nothing."
        )
    for term in explanation.terms:
        if term.kind in {"relation", "mention"}:
            lines.append(f"{_text(term, phrases, relations)} adds {term.value:+.2f}, of which {term.share:+.2f} here.")
        elif term.kind == "sharing":
            others = [phrases[other].text for other in term.phrases if other != explanation.phrase]
            lines.append(
                f"Sharing a place with {others[0]!r} costs {-term.value:.2f}, of which {-term.share:.2f} here."
            )
    lines += [_otherwise(alternative, phrases, boxes) for alternative in explanation.alternatives]
    return "\n".join(lines)


def _text(term: ObjectiveTerm, phrases: Sequence[Phrase], relations: Sequence[Relation]) -> str:
    subject, *objects = (phrases[index].text for index in term.phrases)
    if term.kind == "mention":
        return f"{subject!r} being the same thing as {objects[0]!r}"
    words = (relations[term.relation].text if 0 <= term.relation < len(relations) else "") or term.says
    return f"{subject!r} {words} {_list([repr(text) for text in dict.fromkeys(objects)])}"


def _otherwise(alternative: Alternative, phrases: Sequence[Phrase], boxes: Sequence[Box] | None) -> str:
    start = "If it had to match something"
    if alternative.without is not None:
        start = f"Without {_named([alternative.without], boxes)}"
    place = _named(alternative.instead, boxes)
    if not alternative.instead:
        place = "no region" if boxes is None else "to find it nowhere"
    moved = _list([repr(phrases[index].text) for index in alternative.moved])
    also = f", and {moved} would move" if alternative.moved else ""
    return f"{start}, {place} would be best{also}; the whole alignment would lose {alternative.loss:.2f}."


def _named(regions: Sequence[int], boxes: Sequence[Box] | None) -> str:
    """Regions in words: where they are, or their indices where nobody says."""
    if boxes is None:
        return _list([f"region {region}" for region in regions])
    sides = [[round(side) for side in boxes[region].to_list()] for region in regions]
    return _list([f"the place at {x}, {y} ({width} x {height} pixels)" for x, y, width, height in sides])


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
