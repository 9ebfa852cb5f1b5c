"""Captions checked against the picture: each noun phrase gets a box, or is flagged as not found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmalign.types import Caption, CaptionSpan

if TYPE_CHECKING:
    from mmalign.alignment import Aligner, Alignment, Picture


class AlignmentJudge:
    """Says how well captions fit a picture: by the objective of their alignment with it, a phrase.

    Args:
        picture: The picture, or its path.
        aligner: Looks for phrases.
    """

    def __init__(self, picture: Picture, aligner: Aligner) -> None:
        self._picture, self._aligner = picture, aligner
        self._known: dict[str, Alignment] = {}

    def __call__(self, captions: Sequence[str]) -> list[float]:
        """Align each caption with the picture.

        Args:
            captions: n captions.

        Returns:
            `objective_of` each, in nats; 0 for one without a word. One alignment each, of about the time of
            `mmalign align`.

        Raises:
            DecodeError: The picture cannot be read.
        """
        return [objective_of(self.align(caption)) if caption.strip() else 0.0 for caption in captions]

    def align(self, caption: str) -> Alignment:
        """The caption's alignment with the picture, made at the first call and kept."""
        if caption not in self._known:
            self._known[caption] = self._aligner.align(self._picture, caption)
        return self._known[caption]


def ground_caption(caption: Caption, picture: Picture, aligner: Aligner, *, found: Alignment | None = None) -> Caption:
    """Look for what a caption names in the picture that it was written for.

    Args:
        caption: The caption.
        picture: The picture, or its path.
        aligner: Looks for phrases.
        found: The caption's alignment with the picture, where it was made before.

    Returns:
        The caption with a span for each of its noun phrases that names something that can be seen in one place:
        `region` where it was found, `supported` False where not.

    Raises:
        DecodeError: The picture cannot be read.
    """
    if not caption.text.strip():
        return caption
    if found is None:
        found = aligner.align(picture, caption.text)
    return replace(
        caption,
        spans=tuple(sorted((*caption.spans, *phrase_spans(found)), key=lambda span: (span.start, -span.end))),
        notes=(*caption.notes, *found.notes),
    )


def phrase_spans(found: Alignment) -> tuple[CaptionSpan, ...]:
    """The noun phrases of an alignment as spans of its sentence; those that name nothing in one place are left out."""
    best: dict[int, tuple[float, int]] = {}
    for link in found.links:
        best[link.phrase] = max(best.get(link.phrase, (-1.0, -1)), (link.score, link.region))
    spans = []
    for number, phrase in enumerate(found.phrases):
        if phrase.abstract or phrase.start < 0 or phrase.antecedent is not None:
            continue
        score, region = best.get(number, (None, None))
        spans.append(
            CaptionSpan(
                phrase.text,
                phrase.start,
                phrase.end,
                "phrase",
                region=None if region is None else found.regions[region],
                supported=region is not None,
                probability=score,
            )
        )
    return tuple(spans)


def objective_of(found: Alignment) -> float:
    """How well a picture fits a sentence, for one phrase of it: the alignment's objective by number of phrases.

    Returns:
        In nats; 0 for a sentence that names nothing.
    """
    return found.objective / max(1, len(found.phrases))
