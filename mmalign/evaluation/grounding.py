"""How well phrases are found in pictures: boxes, pointing, and what joint matching adds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mmalign.alignment import MATCHING, Aligner, PhraseScores
from mmalign.encoders import Encoder
from mmalign.errors import InputError
from mmalign.evaluation.existence import ExistenceSigns, ExistenceTable, measure_existence, replace_phrases
from mmalign.evaluation.phrases import PhrasePicture, read_phrases
from mmalign.evaluation.sentences import Sentence, by_caption
from mmalign.matching import Matching, SolverName, build_problem, conditional_worth, solve
from mmalign.media import load_pictures
from mmalign.metrics import (
    Float64Array,
    bootstrap_interval,
    first_hit,
    heat_peak,
    iou_matrix,
    points_inside,
    recall_of_ranks,
    union_box,
)
from mmalign.types import Box, Skip, gives_json
from mmalign.utils import Int64Array, track

CUTOFFS = (1, 5, 10)
SOLVERS: tuple[SolverName, ...] = get_args(SolverName)
# Answers to one phrase that overlap by more are the same answer, and are given once.
_SAME = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class SolverRanks:
    """What a solver answered to n phrases.

    Attributes:
        ranks: Rank of the first answer that overlaps a true box by half, shape (n,), 0 where none does.
        merged: Whether the union of the regions that a phrase got overlaps the union of its true boxes by half,
            shape (n,); of a phrase that got none, the first answer.
        unmatched: Whether a phrase was left without a region, shape (n,).
    """

    ranks: Int64Array
    merged: NDArray[np.bool_]
    unmatched: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class GroundingTable:
    """How well phrases were found.

    Attributes:
        settings: Encoder, head, regions, solver.
        n_images: Pictures.
        owner: Position of each phrase's picture, shape (n,).
        pointed: Whether the peak of a phrase's heat map lies in one of its true boxes, shape (n,).
        whole_image: Rank of the whole picture as an answer, 1 or 0, shape (n,).
        centre: Whether the middle of the picture lies in one of a phrase's true boxes, shape (n,).
        solvers: What each solver answered.
        chance: Share of the regions that would be right for each phrase, shape (n,).
        skipped: Pictures that were left out, with the reason.
        existence: How phrases were told that are not there, or None where it was not measured.
    """

    settings: dict[str, Any]
    n_images: int
    owner: Int64Array
    pointed: NDArray[np.bool_]
    whole_image: Int64Array
    centre: NDArray[np.bool_]
    solvers: dict[SolverName, SolverRanks]
    chance: Float64Array
    skipped: tuple[Skip, ...] = ()
    existence: ExistenceTable | None = None

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON-ready values, in percent; intervals cover 95% and are drawn over pictures."""
        first = self.solvers[self.settings["solver"]]
        payload: dict[str, Any] = {
            "n_images": self.n_images,
            "n_phrases": len(self.owner),
            **_recalls(first),
            "pointing": _percent(self.pointed),
            "r@1_merged": _percent(first.merged),
            "trivial": {"whole_image": _percent(self.whole_image == 1), "center_pointing": _percent(self.centre)},
            "by_solver": {
                name: {
                    **_recalls(found),
                    "r@1_merged": _percent(found.merged),
                    "unmatched": _percent(found.unmatched),
                }
                for name, found in self.solvers.items()
            },
            "over_argmax": {name: self._difference(found) for name, found in self.solvers.items() if name != "argmax"},
            "chance": _percent(self.chance),
            "interval_95": {
                "r@1": self._interval(first.ranks == 1),
                "pointing": self._interval(self.pointed),
                "r@1_merged": self._interval(first.merged),
            },
            "settings": self.settings,
        }
        return payload if self.existence is None else {**payload, "absent": self.existence.to_dict()}

    def _interval(self, hits: NDArray[Any]) -> list[float]:
        low, high = bootstrap_interval(hits, groups=self.owner)
        return [round(100 * low, 2), round(100 * high, 2)]

    def _difference(self, found: SolverRanks) -> dict[str, Any]:
        """In r@1, the same phrases answered by both solvers."""
        gain = (found.ranks == 1).astype(float) - (self.solvers["argmax"].ranks == 1)
        return {
            "r@1": _percent(gain),
            "interval_95": self._interval(gain),
            "better": int((gain > 0).sum()),
            "worse": int((gain < 0).sum()),
        }


@dataclass
class _Tally:
    owner: list[int] = field(default_factory=list)
    pointed: list[bool] = field(default_factory=list)
    whole: list[int] = field(default_factory=list)
    centre: list[bool] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)
    ranks: dict[SolverName, list[tuple[int, bool, bool]]] = field(
        default_factory=lambda: {name: [] for name in SOLVERS}
    )


def evaluate_grounding(
    manifest: str | os.PathLike[str],
    *,
    split: str | None = None,
    encoder: str | Encoder | Aligner = "lite",
    solver: SolverName = "graph",
    regions: Literal["proposals", "given"] | str = "proposals",
    head: Literal["auto", "none"] = "auto",
    absent: bool = False,
    matching: Matching | None = None,
    progress: bool = True,
) -> GroundingTable:
    """Measure how well phrases are found in the pictures of a manifest.

    The phrases of one caption are matched together, with what it says of their places (`by_caption`). An answer is
    right where it overlaps any true box of the phrase by half. The regions that a solver gave to a phrase come first;
    then all others, by what each would be worth if the other phrases stayed where they are, without near copies of
    better ones. A phrase that a solver left without a region is ranked like that, too; `unmatched` says how many.

    Args:
        manifest: A manifest as for `read_phrases`.
        split: Which part of it; all of it where None.
        encoder: A spec for `load_encoder`, an encoder, or an aligner with one.
        solver: Whose figures are the table's own; all of them are measured.
        regions: `given` for all true boxes of the picture as candidates, else as for `Aligner.align`.
        head: `none` to leave the learned head out.
        absent: Whether to measure, too, how phrases are told that are not in the picture.
        matching: As for `Aligner.align`.
        progress: Whether to show a progress bar.

    Returns:
        The table; pictures that cannot be decoded are in `skipped`.

    Raises:
        SourceError: The manifest cannot be read.
        InputError: No such split, no phrases, none of the pictures can be decoded, or an unknown solver.

    Source: the any-box and merged-box protocols of Plummer et al., Flickr30k Entities, 2015; the pointing game of Zhang
    et al., 2016.
    """
    if solver not in SOLVERS:
        raise InputError(f"unknown solver {solver!r}; there are: {', '.join(SOLVERS)}")
    pictures = read_phrases(manifest, split=split)
    aligner = encoder if isinstance(encoder, Aligner) else Aligner(encoder, head=head)
    strangers = replace_phrases(pictures) if absent else [None] * len(pictures)
    tally, skipped, signs = _Tally(), [], ExistenceSigns()
    with track("Aligning", len(pictures), enabled=progress) as advance:
        for number, result in enumerate(load_pictures([picture.uri for picture in pictures])):
            picture, stranger = pictures[number], strangers[number]
            if isinstance(result, Skip) or result.image is None:
                skipped.append(result if isinstance(result, Skip) else Skip(picture.uri, "no picture"))
            else:
                asked = list(picture.phrases) + ([] if stranger is None else [stranger.phrase])
                candidates = given_boxes(picture, result.image.size) if regions == "given" else regions
                found = aligner.score_phrases(result.image, asked, regions=candidates)
                _count(tally, number, picture, found, result.image.size, matching, aligner.parser)
                if stranger is not None:
                    signs.add(number, found, stranger.replaced)
            advance(1)
    if not tally.owner:
        first = f"; the first: {skipped[0].uri}: {skipped[0].reason}" if skipped else ""
        raise InputError(f"none of the {len(pictures)} pictures to measure on can be decoded{first}")
    return GroundingTable(
        settings={
            "encoder": aligner.encoder.name,
            "head": aligner.head is not None,
            "regions": regions,
            "solver": solver,
        },
        n_images=len(pictures) - len(skipped),
        owner=np.array(tally.owner, np.int64),
        pointed=np.array(tally.pointed),
        whole_image=np.array(tally.whole, np.int64),
        centre=np.array(tally.centre),
        chance=np.array(tally.chance),
        solvers={
            name: SolverRanks(*(np.array(column) for column in zip(*answers, strict=True)))
            for name, answers in tally.ranks.items()
        },
        skipped=tuple(skipped),
        existence=measure_existence(signs, [picture.uri for picture in pictures]) if absent else None,
    )


def given_boxes(picture: PhrasePicture, size: tuple[int, int]) -> list[Box]:
    """All true boxes of a picture, each once, cut off at its edges; what lies outside it is left out."""
    found: dict[tuple[float, ...], Box] = {}
    for row in np.concatenate(picture.boxes).tolist():
        try:
            found[tuple(row)] = Box(*row).clipped(*size)
        except InputError:
            continue
    return list(found.values())


def ranked_answers(worth: Float64Array, taken: Sequence[int], boxes: Float64Array, *, most: int) -> list[int]:
    """Order the regions as answers to one phrase.

    Args:
        worth: What each region is worth to it, shape (r,).
        taken: The regions that it got, best first.
        boxes: Shape (r, 4).
        most: How many answers at most.

    Returns:
        The regions that it got, then the others by worth, leaving out near copies of those before.
    """
    answers: list[int] = []
    for index in (*taken, *np.argsort(-worth, kind="stable").tolist()):
        if len(answers) == most:
            break
        if index in answers:
            continue
        if answers and index not in taken and iou_matrix(boxes[[index]], boxes[answers]).max() > _SAME:
            continue
        answers.append(int(index))
    return answers


def _count(
    tally: _Tally,
    number: int,
    picture: PhrasePicture,
    found: PhraseScores,
    size: tuple[int, int],
    matching: Matching | None,
    parser: str,
) -> None:
    boxes = np.array([region.box.to_list() for region in found.regions]).reshape(-1, 4)
    whole = [[0.0, 0.0, float(size[0]), float(size[1])]]
    for index, true in enumerate(picture.boxes):
        tally.owner.append(number)
        tally.pointed.append(points_inside(heat_peak(found.heat[index], *size), true))
        tally.whole.append(first_hit(whole, true))
        tally.centre.append(points_inside([size[0] / 2, size[1] / 2], true))
        right: NDArray[np.bool_] = np.asarray((iou_matrix(boxes, true) >= 0.5).any(axis=1))
        tally.chance.append(float(right.mean()) if len(right) else 0.0)
    answers: dict[SolverName, dict[int, tuple[int, bool, bool]]] = {name: {} for name in SOLVERS}
    for sentence in by_caption(picture.phrases, picture.captions, parser=parser):
        for name, outcome in _answer(sentence, found, boxes, picture, matching).items():
            answers[name].update(outcome)
    for name in SOLVERS:
        tally.ranks[name] += [answers[name][index] for index in range(len(picture.phrases))]


def _answer(
    sentence: Sentence, found: PhraseScores, boxes: Float64Array, picture: PhrasePicture, matching: Matching | None
) -> dict[SolverName, dict[int, tuple[int, bool, bool]]]:
    members = list(sentence.members)
    problem = build_problem(
        found.similarity[members],
        sentence.parsed.phrases,
        sentence.parsed.relations,
        [region.box for region in found.regions],
        existence=None if found.existence is None else found.existence[members],
        matching=matching or MATCHING,
    )
    outcomes: dict[SolverName, dict[int, tuple[int, bool, bool]]] = {}
    for name in SOLVERS:
        assignment = solve(problem, solver=name).assignment
        worth = problem.unary if name == "argmax" else conditional_worth(problem, assignment)[:, : len(boxes)]
        outcomes[name] = {}
        for position, index in enumerate(members):
            taken, true = assignment[position], picture.boxes[index]
            answers = ranked_answers(worth[position], taken, boxes, most=max(CUTOFFS))
            rank = first_hit(boxes[answers], true)
            united = boxes[list(taken) or answers[:1]]
            merged = len(united) > 0 and first_hit([union_box(united)], [union_box(true)]) == 1
            outcomes[name][index] = (rank, merged, not taken)
    return outcomes


def _recalls(found: SolverRanks) -> dict[str, float]:
    return {f"r@{k}": round(100 * recall_of_ranks(found.ranks, k), 2) for k in CUTOFFS}


def _percent(values: NDArray[Any]) -> float:
    return round(100 * float(np.mean(values)), 2)
