"""Which words of a sentence are where in a picture: the parts of alignment joined."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, Union

import numpy as np
from PIL import Image

from mmalign.alignment.build import build_alignment
from mmalign.alignment.scores import AnyGrounding, PhraseScores, detector_bonus, heat_maps, proposal_bonus, proposals_of
from mmalign.encoders import Encoder, has_patches, load_encoder
from mmalign.errors import InputError
from mmalign.matching import Matching, SolverName, build_problem, solve
from mmalign.media import decode_image
from mmalign.parsing import Parsed, given_phrases, parse_sentence
from mmalign.regions import GivenRegion, given_regions
from mmalign.types import Note, Phrase, Relation, as_list, check_choice, check_text, check_type, describe
from mmalign.utils import Float32Array, track

if TYPE_CHECKING:
    from mmalign.alignment.result import Alignment
    from mmalign.grounding import GroundingHead
    from mmalign.regions import Detector

__all__ = ["MATCHING", "Aligner", "PhraseScores", "Picture", "Regions", "align", "normalise_heat", "referent_texts"]

Picture: TypeAlias = Union[Image.Image, str, "os.PathLike[str]"]
"""A decoded picture, a path, or an http(s) URL."""

Regions: TypeAlias = str | Sequence[GivenRegion]
"""`proposals`; a detector such as `torchvision:fasterrcnn_resnet50_fpn_v2` or `hf:google/owlvit-base-patch32`; or
regions of the caller's own, as `Box`, `Region`, [x, y, width, height] or mask."""

MATCHING = Matching(temperature=1.0)
"""How similarities are weighed by default: they are in nats already."""


@dataclass
class Stages:
    """What each stage of an alignment took.

    Attributes:
        seconds: Wall time by stage: `decode`, `parse`, `propose`, `encode`, `score`, `solve`.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began


class Aligner:
    """Aligns sentences with pictures, and keeps the models between calls.

    Args:
        encoder: What `load_encoder` takes.
        head: `auto` for the learned head where one comes with mmalign for the encoder, `none` for the encoder alone.
        parser: How sentences are taken apart; see `parse_sentence`.
        device: A torch device; None for CUDA where there is one, else the processor.

    Raises:
        EncoderSpecError: The encoder's name means nothing.
        ModelUnavailableError: Its weights are not here and cannot be fetched.
        InputError: An unknown head, or an encoder that does not take both texts and pictures.

    Example:
        >>> from PIL import Image
        >>> aligner = Aligner("lite")
        >>> aligner.heat(Image.new("RGB", (64, 48)), ["a dog", "snow"]).ndim
        3
    """

    def __init__(
        self,
        encoder: str | Encoder = "lite",
        *,
        head: Literal["auto", "none"] = "auto",
        parser: str = "auto",
        device: str | None = None,
    ) -> None:
        check_choice("head", head, ("auto", "none"))
        check_text("parser", parser)
        self.encoder = load_encoder(encoder, device=device)
        if set(self.encoder.modalities) != {"text", "image"}:
            raise InputError(
                f"to align words with a picture takes an encoder of both, {self.encoder.name} has "
                f"{', '.join(sorted(self.encoder.modalities))}"
            )
        self._detectors: dict[str, Detector] = {}
        self.parser = parser
        self.device = device
        self.head: GroundingHead | None = _shipped_head(self.encoder) if head == "auto" else None

    def align(
        self,
        image: Picture,
        sentence: str,
        *,
        solver: SolverName = "graph",
        regions: Regions = "proposals",
        phrases: Sequence[str | Phrase] | None = None,
        relations: Sequence[Relation] | None = None,
        matching: Matching | None = None,
    ) -> Alignment:
        """Say which phrase of a sentence belongs to which region of a picture.

        Args:
            image: A picture of any PIL mode, a path, or a URL.
            sentence: What the picture is said to show.
            solver: `argmax` takes each phrase alone, `hungarian` gives no region twice, `graph` weighs what the
                sentence says of the phrases' places as well.
            regions: Where phrases may be: `proposals`, a detector (`torchvision:NAME`, `hf:NAME`), or boxes.
            phrases: The phrases to look for, in any language; None to find them in the sentence.
            relations: What is said of the phrases' places, by their indices; None for what the sentence says, or
                nothing where phrases are given.
            matching: How similarities, relations and absence are weighed; None for what suits the head.

        Returns:
            The alignment.

        Raises:
            DecodeError: The picture cannot be read.
            InputError: An empty sentence, a box outside the picture or without area, a relation that names an unknown
                phrase, an unknown solver or kind of regions.
            MissingExtraError: The parser or the detector needs a package that is not installed.
        """
        check_text("sentence", sentence)
        if matching is not None:
            check_type("matching", matching, Matching, "a Matching")
        if relations is not None:
            relations = as_list("relations", relations, "a list of `Relation`s")
        stages = Stages()
        with stages.time("decode"):
            picture = decode_image(image).image
        with stages.time("parse"):
            parsed = self._parsed(sentence, phrases, relations)
        found = self._score_phrases(picture, referent_texts(parsed.phrases), regions, stages)
        with stages.time("solve"):
            problem = build_problem(
                found.similarity,
                parsed.phrases,
                parsed.relations,
                [region.box for region in found.regions],
                existence=found.existence,
                matching=matching or MATCHING,
            )
            solution = solve(problem, solver=solver)
        notes = [*parsed.notes, *found.notes]
        if not parsed.phrases:
            notes.append(Note("the sentence names nothing that could be looked for", remedy="give phrases of your own"))
        elif not found.regions:
            notes.append(Note("there are no regions, so nothing could be matched"))
        return build_alignment(
            parsed,
            found.regions,
            problem,
            solution,
            notes=notes,
            similarity=found.similarity,
            existence=found.existence,
            heat=normalise_heat(found.heat),
            seconds=stages.seconds,
        )

    def align_many(
        self,
        pairs: Iterable[tuple[Picture, str]],
        *,
        solver: SolverName = "graph",
        regions: str = "proposals",
        matching: Matching | None = None,
        progress: bool = True,
    ) -> list[Alignment]:
        """Align many pictures with a sentence each.

        Args:
            pairs: Pictures and their sentences.
            solver: As for `align`.
            regions: `proposals` or a detector.
            matching: As for `align`.
            progress: Whether to show a progress bar where a person watches.

        Returns:
            An alignment for each pair, in order.

        Raises:
            DecodeError: As `align`.
            InputError: As `align`.
        """
        waiting = [_pair(one, i) for i, one in enumerate(as_list("pairs", pairs, "a list of pictures with sentences"))]
        done = []
        with track("aligning", len(waiting), enabled=progress) as advance:
            for image, sentence in waiting:
                done.append(self.align(image, sentence, solver=solver, regions=regions, matching=matching))
                advance(1)
        return done

    def score_phrases(self, image: Picture, phrases: Sequence[str], *, regions: Regions = "proposals") -> PhraseScores:
        """Look for phrases in a picture, each by itself: all that the solvers are given.

        Args:
            image: A picture of any PIL mode, a path, or a URL.
            phrases: p phrases.
            regions: As for `align`.

        Returns:
            The regions, and how each phrase is like them.

        Raises:
            DecodeError: The picture cannot be read.
            InputError: As `align`.
            MissingExtraError: As `align`.
        """
        return self._score_phrases(decode_image(image).image, _texts(phrases), regions, Stages())

    def heat(self, image: Picture, phrases: Sequence[str]) -> Float32Array:
        """Give a map of where in a picture each phrase is.

        Args:
            image: A picture of any PIL mode, a path, or a URL.
            phrases: p phrases.

        Returns:
            Array of shape (p, h, w), float32; the cells divide the whole picture evenly, row 0 is the top. Higher is
            more likely; with a head it is the probability of the cell, 0 to 1.

        Raises:
            DecodeError: The picture cannot be read.
            InputError: Not a sequence of texts.
        """
        picture = decode_image(image).image
        grounding = self._ground(picture, _texts(phrases))
        # Without places of its own, an encoder has only what regions are like.
        regions = () if has_patches(self.encoder) else proposals_of(picture, grounding, [])
        return heat_maps(grounding, [region.box for region in regions])

    def similarity(self, image: Picture, phrases: Sequence[str], regions: Regions = "proposals") -> Float32Array:
        """Score each region for each phrase by itself.

        Args:
            image: A picture of any PIL mode, a path, or a URL.
            phrases: p phrases.
            regions: As for `align`.

        Returns:
            Array of shape (p, r), float32; higher is better, and differences within a row are in nats.

        Raises:
            DecodeError: The picture cannot be read.
            InputError: As `align`.
            MissingExtraError: As `align`.
        """
        return self.score_phrases(image, phrases, regions=regions).similarity

    def _parsed(
        self, sentence: str, phrases: Sequence[str | Phrase] | None, relations: Sequence[Relation] | None
    ) -> Parsed:
        if phrases is not None:
            return given_phrases(sentence, phrases, relations or ())
        parsed = parse_sentence(sentence, parser=self.parser)
        if relations is None:
            return parsed
        given = given_phrases(sentence, parsed.phrases, relations)
        return Parsed(sentence, given.phrases, given.relations, parsed.parser, parsed.notes)

    def _ground(self, picture: Image.Image, texts: Sequence[str]) -> AnyGrounding:
        if self.head is not None:
            return self.head.ground(self.encoder, picture, texts)  # type: ignore[arg-type]
        from mmalign.grounding import ground_plainly

        return ground_plainly(self.encoder, picture, texts)

    def _score_phrases(
        self, picture: Image.Image, texts: Sequence[str], regions: Regions, stages: Stages
    ) -> PhraseScores:
        notes: list[Note] = []
        with stages.time("encode"):
            grounding = self._ground(picture, texts)
        with stages.time("propose"):
            if not isinstance(regions, str):
                found, clipped = given_regions(regions, *picture.size)
                notes += clipped
            elif regions == "proposals":
                found = proposals_of(picture, grounding, notes)
            else:
                # A detector that looks for phrases has nothing to look for where there are none.
                found = self._detector(regions).detect(picture, texts) if texts else ()
        boxes = [region.box for region in found]
        with stages.time("score"):
            similarity = grounding.score(boxes) + detector_bonus(found, texts)
            if self.head is None and isinstance(regions, str) and regions == "proposals":
                similarity = similarity + proposal_bonus(found, picture.size)
            heat = heat_maps(grounding, boxes)
        return PhraseScores(found, similarity, heat, grounding.existence, tuple(notes))

    def _detector(self, spec: str) -> Detector:
        if not spec.startswith(("torchvision:", "hf:")):
            raise InputError(
                f"regions are proposals, torchvision:NAME, hf:NAME or a list of boxes, got {spec!r}; for example "
                "torchvision:fasterrcnn_resnet50_fpn_v2"
            )
        if spec not in self._detectors:
            from mmalign.regions import load_detector

            self._detectors[spec] = load_detector(spec, device=self.device)
        return self._detectors[spec]


def align(
    image: Picture,
    sentence: str,
    *,
    encoder: str | Encoder = "lite",
    solver: SolverName = "graph",
    regions: Regions = "proposals",
    phrases: Sequence[str | Phrase] | None = None,
    relations: Sequence[Relation] | None = None,
    head: Literal["auto", "none"] = "auto",
    parser: str = "auto",
) -> Alignment:
    """Say which phrase of a sentence belongs to which region of a picture; for many pictures, keep an `Aligner`.

    Args:
        image: A picture of any PIL mode, a path, or a URL.
        sentence: What the picture is said to show.
        encoder: What `load_encoder` takes.
        solver: See `Aligner.align`.
        regions: See `Aligner.align`.
        phrases: See `Aligner.align`.
        relations: See `Aligner.align`.
        head: See `Aligner`.
        parser: See `parse_sentence`.

    Returns:
        The alignment.

    Raises:
        DecodeError: The picture cannot be read.
        InputError: See `Aligner.align`.
        MissingExtraError: See `Aligner.align`.

    Example:
        >>> found = align("dog.jpg", "a dog left of a red ball")  # doctest: +SKIP
        >>> found.draw(Image.open("dog.jpg")).save("aligned.png")  # doctest: +SKIP
    """
    if isinstance(encoder, str):
        aligner = _kept_aligner(encoder, head=head, parser=parser)
    else:
        aligner = Aligner(encoder, head=head, parser=parser)
    return aligner.align(image, sentence, solver=solver, regions=regions, phrases=phrases, relations=relations)


def referent_texts(phrases: Sequence[Phrase]) -> list[str]:
    """Give what to look for, for each phrase: of a pronoun, the phrase that it stands for.

    Args:
        phrases: The phrases.

    Returns:
        A text for each.
    """
    texts = []
    for phrase in phrases:
        seen = {id(phrase)}
        while phrase.antecedent is not None and len(phrase.text.split()) == 1:
            phrase = phrases[phrase.antecedent]
            if id(phrase) in seen:
                break
            seen.add(id(phrase))
        texts.append(phrase.text)
    return texts


def normalise_heat(heat: Float32Array) -> Float32Array:
    """Bring maps to 0 to 1, each by itself unless it is there already, so that they can be drawn.

    Args:
        heat: Array of shape (p, h, w).

    Returns:
        Array of the same shape, float32.
    """
    if not heat.size or (heat.min() >= 0 and heat.max() <= 1):
        return heat
    low = heat.min(axis=(1, 2), keepdims=True)
    spread = heat.max(axis=(1, 2), keepdims=True) - low
    result: Float32Array = np.divide(heat - low, spread, out=np.zeros_like(heat), where=spread > 0)
    return result


@lru_cache(maxsize=2)
def _kept_aligner(encoder: str, *, head: Literal["auto", "none"], parser: str) -> Aligner:
    return Aligner(encoder, head=head, parser=parser)


def _texts(phrases: Sequence[str]) -> list[str]:
    listed = as_list("phrases", phrases, "a list of texts")
    for phrase in listed:
        check_type("phrases", phrase, str, "a list of texts")
    return listed


def _pair(pair: object, place: int) -> tuple[Picture, str]:
    """A picture with its sentence."""
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InputError(f"pair {place} must be a picture and a sentence, got {describe(pair)}")
    return pair[0], pair[1]


def _shipped_head(encoder: Encoder) -> GroundingHead | None:
    from mmalign.grounding import shipped_head

    return shipped_head(encoder)
