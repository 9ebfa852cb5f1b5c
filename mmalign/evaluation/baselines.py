"""What the rungs of the ladder of captioners reached, and how sure the steps between them are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmalign.metrics import CaptionScores, DocumentFrequencies, caption_tokens, score_captions
from mmalign.types import Skip, gives_json

RUNGS = ("frequency", "nearest", "consensus", "decoder_no_retrieval", "decoder_random", "decoder", "hf", "human")
"""From the lowest; those that cannot be had are left out of a table, and said to be."""

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class CaptionsTable:
    """What the rungs reached.

    Attributes:
        n: Pictures.
        n_references: Captions that people wrote of them.
        encoder: Name of the encoder.
        datastore: What was retrieved from: counts.
        scores: Of each rung, from the lowest.
        captions: What each rung said of each picture; `human` is not among them.
        clip: CLIPScore and RefCLIPScore of each rung, times 100, where asked for.
        human: Figures of the people, each against the others: mean over who is left out.
        missing: Rungs that were left out, with the reason.
        without_context: Pictures for which nothing was retrieved; they get the most frequent caption.
        uris: The pictures.
        skipped: Pictures that cannot be decoded.
        seed: Of the bootstrap.
    """

    n: int
    n_references: int
    encoder: str
    datastore: Mapping[str, int]
    scores: Mapping[str, CaptionScores]
    captions: Mapping[str, Sequence[str]]
    clip: Mapping[str, Mapping[str, float]]
    human: Mapping[str, float]
    missing: Mapping[str, str]
    without_context: int
    uris: Sequence[str]
    skipped: tuple[Skip, ...] = ()
    seed: int = 0

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the ladder as JSON-ready values, all figures times 100."""
        rungs: dict[str, Any] = {
            name: {**_rounded(scores.figures()), **_rounded(self.clip.get(name, {}))}
            for name, scores in self.scores.items()
        }
        if self.human:
            rungs["human"] = _rounded(self.human)
        return {
            "n": self.n,
            "n_references": self.n_references,
            "encoder": self.encoder,
            "datastore": dict(self.datastore),
            **rungs,
            "differences": self.differences(),
            "missing": dict(self.missing),
            "without_context": self.without_context,
        }

    def differences(self) -> dict[str, dict[str, list[float]]]:
        """How much better each rung is than the one below, and the decoder than every other.

        Returns:
            By `higher - lower` and figure: `[difference, low, high]`, times 100; the interval covers 95% and is drawn
            over pictures, the same for both.
        """
        names = list(self.scores)
        pairs = list(zip(names[1:], names, strict=False))
        if "decoder" in names:
            pairs += [("decoder", name) for name in names if name != "decoder" and ("decoder", name) not in pairs]
        draws = np.random.default_rng(self.seed).integers(self.n, size=(_RESAMPLES, self.n))
        samples = {name: scores.resampled(draws) for name, scores in self.scores.items()}
        table = {}
        for high, low in pairs:
            first, second = self.scores[high].figures(), self.scores[low].figures()
            table[f"{high} - {low}"] = {
                figure: [
                    round(first[figure] - second[figure], 2),
                    *(
                        round(float(q), 2)
                        for q in np.quantile(samples[high][figure] - samples[low][figure], [0.025, 0.975])
                    ),
                ]
                for figure in first
            }
        return table


def human_scores(references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score each caption that a person wrote against those of the others.

    Args:
        references: What people wrote of n pictures; those with a single caption are left out.

    Returns:
        Figures, times 100: the mean over who is left out, first captions, second captions and so on. People are
        compared with one reference fewer than programs are. Empty where fewer than two pictures have two captions.
    """
    frequencies = [[caption_tokens(caption) for caption in own] for own in references]
    several = [own for own in references if len(own) > 1]
    if len(several) < 2:
        return {}
    weights = DocumentFrequencies.of(frequencies)
    rounds = []
    for left_out in range(max(map(len, several))):
        chosen = [own for own in several if len(own) > left_out]
        others = [[caption for place, caption in enumerate(own) if place != left_out] for own in chosen]
        rounds.append(score_captions([own[left_out] for own in chosen], others, frequencies=weights).figures())
    return {name: float(np.mean([one[name] for one in rounds])) for name in rounds[0]}


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in figures.items()}
