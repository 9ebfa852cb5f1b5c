"""A caption without any decoder: of those retrieved, the one that the others agree with most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.captioning.retrieval import RetrievedCaptions
from mmalign.errors import InputError
from mmalign.metrics import CaptionVectors, DocumentFrequencies, Tokens, WordRuns, caption_tokens, cider_table

# Captions from which words are weighed: more change little, and counting them takes its time.
_SAMPLE = 10_000
# All runs weigh the same.
_UNIFORM = DocumentFrequencies(3, {})


@dataclass(frozen=True, slots=True)
class MBRConfig:
    """What counts as agreement.

    Attributes:
        voters: Captions that vote, the nearest ones.
        candidates: Captions that may be chosen, the nearest ones.
        temperature: How fast the weight of a vote falls with the caption's score: by exp(1) for so much. Of the scale
            of the scores, which are cosines.
        plain: How much agreement counts in which all words weigh alike, beside that in telling words.

    Raises:
        InputError: A value outside its range.
    """

    voters: int = 150
    candidates: int = 120
    temperature: float = 0.2
    plain: float = 0.25

    def __post_init__(self) -> None:
        if min(self.voters, self.candidates) < 1 or self.temperature <= 0 or self.plain < 0:
            raise InputError(
                "expected at least one voter and one candidate, a temperature above 0 and a plain share of 0 or more, "
                f"got {self.voters}, {self.candidates}, {self.temperature:g} and {self.plain:g}"
            )


@dataclass(frozen=True, slots=True)
class MBRResult:
    """A caption that others agree with.

    Attributes:
        text: The caption, as it was written.
        score: Weighted mean of its likeness to the captions retrieved, at least 0.
        rank: Its place in the context, from 0.
    """

    text: str
    score: float
    rank: int


def word_weights(captions: Sequence[str]) -> DocumentFrequencies:
    """Weigh runs of words by how few captions they are in.

    Args:
        captions: Captions of the kind that is chosen from, at least two; of many, a sample spread evenly is counted.

    Returns:
        Document frequencies, each caption a document.

    Raises:
        InputError: Fewer than two captions.
    """
    step = max(1, len(captions) // _SAMPLE)
    return DocumentFrequencies.of([caption_tokens(caption)] for caption in captions[::step])


class Consensus:
    """Chooses captions by agreement (minimum Bayes risk).

    Args:
        frequencies: Weights of the words, from `word_weights`.
        how: What counts as agreement.

    Source: minimum Bayes risk: Kumar and Byrne, Minimum Bayes-risk decoding for statistical machine translation, 2004;
    consensus of retrieved captions: Devlin et al., Exploring nearest neighbor approaches for image captioning, 2015.
    """

    def __init__(self, frequencies: DocumentFrequencies, how: MBRConfig = MBRConfig()) -> None:
        self._frequencies, self._how = frequencies, how

    def choose(self, context: RetrievedCaptions, *, drafts: Sequence[str] = ()) -> list[MBRResult]:
        """Rank a picture's captions by how much the retrieved ones agree with them.

        Args:
            context: The captions retrieved for it.
            drafts: Captions to rank instead of the retrieved ones, such as those that a decoder wrote.

        Returns:
            All candidates, best first; none where nothing was retrieved. `rank` counts the drafts where there are any.
        """
        voters = context[: self._how.voters]
        texts = list(drafts) or list(context.captions[: self._how.candidates])
        if not len(voters) or not texts:
            return [MBRResult(text, 0.0, rank) for rank, text in enumerate(texts)]
        weights = np.exp((voters.scores.astype(np.float64) - voters.scores.max()) / self._how.temperature)
        tokens = [caption_tokens(text) for text in texts]
        voter_tokens = [caption_tokens(text) for text in voters.captions]
        score = self._likeness(self._frequencies, tokens, voter_tokens) @ (weights / weights.sum())
        if self._how.plain:
            score += self._how.plain * (self._likeness(_UNIFORM, tokens, voter_tokens) @ (weights / weights.sum()))
        order = np.argsort(-score, kind="stable").tolist()
        return [MBRResult(texts[rank], float(score[rank]), rank) for rank in order]

    @staticmethod
    def _likeness(
        frequencies: DocumentFrequencies, candidates: Sequence[Tokens], voters: Sequence[Tokens]
    ) -> NDArray[np.float64]:
        # A numbering of its own for each picture keeps the tables narrow.
        runs = WordRuns(frequencies)
        vectors: CaptionVectors = runs.vectors(candidates)
        return cider_table(vectors, runs.vectors(voters))


def consensus(
    context: RetrievedCaptions, frequencies: DocumentFrequencies, *, how: MBRConfig = MBRConfig()
) -> MBRResult | None:
    """The retrieved caption that the others agree with most.

    Args:
        context: The captions retrieved for a picture.
        frequencies: Weights of the words, from `word_weights`.
        how: What counts as agreement.

    Returns:
        The caption, or None where nothing was retrieved.
    """
    ranked = Consensus(frequencies, how).choose(context)
    return ranked[0] if ranked else None
