"""The caption that others agree with: compared with pycocoevalcap's CIDEr over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from mmalign.captioning.consensus import Consensus, MBRConfig, consensus, word_weights
from mmalign.captioning.retrieval import RetrievedCaptions
from mmalign.errors import InputError
from mmalign.metrics.cider import DocumentFrequencies, cider_d
from mmalign.metrics.ptb import caption_tokens

CAPTIONS = (
    "A man rides a horse.",
    "Two dogs run on the grass.",
    "Two dogs run through the snow.",
    "Two brown dogs run on green grass.",
    "A dog sleeps.",
    "Dogs run on the grass.",
)


def context(scores: list[float] | None = None) -> RetrievedCaptions:
    return RetrievedCaptions(CAPTIONS, np.array(scores or [0.5] * 6, np.float32), ("",) * 6, np.arange(6))


def by_hand(scores: list[float], weights: DocumentFrequencies, temperature: float) -> list[float]:
    tokens = [caption_tokens(caption) for caption in CAPTIONS]
    votes = np.exp((np.array(scores) - max(scores)) / temperature)
    table = [cider_d([one] * 6, [[other] for other in tokens], frequencies=weights) for one in tokens]
    return [float(row @ votes / votes.sum()) for row in table]


def test_against_all_pairs() -> None:
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    weights = word_weights(CAPTIONS)
    how = MBRConfig(plain=0, temperature=0.3)
    ranked = Consensus(weights, how).choose(context(scores))
    expected = by_hand(scores, weights, 0.3)
    assert [one.rank for one in ranked] == np.argsort(-np.array(expected)).tolist()
    assert [one.score for one in ranked] == pytest.approx(sorted(expected, reverse=True))


def test_the_majority_wins_and_a_strong_vote_may_change_that() -> None:
    weights = word_weights(CAPTIONS)
    agreed = consensus(context(), weights)
    assert agreed is not None
    assert agreed.text in {"Two dogs run on the grass.", "Dogs run on the grass."}
    assert CAPTIONS[agreed.rank] == agreed.text
    lonely = consensus(context([0.9, 0.1, 0.1, 0.1, 0.1, 0.1]), weights, how=MBRConfig(temperature=0.05))
    assert lonely is not None
    assert lonely.text == CAPTIONS[0]


def test_drafts_are_judged_by_what_was_retrieved() -> None:
    drafts = ["A cat sings.", "Two dogs run on grass."]
    ranked = Consensus(word_weights(CAPTIONS)).choose(context(), drafts=drafts)
    assert [one.text for one in ranked] == drafts[::-1]
    assert [one.rank for one in ranked] == [1, 0]
    assert ranked[1].score < ranked[0].score


def test_few_voters_and_candidates() -> None:
    ranked = Consensus(word_weights(CAPTIONS), MBRConfig(voters=2, candidates=3)).choose(context())
    assert sorted(one.rank for one in ranked) == [0, 1, 2]


def test_nothing_was_retrieved() -> None:
    weights = word_weights(CAPTIONS)
    assert consensus(RetrievedCaptions(), weights) is None
    assert [one.score for one in Consensus(weights).choose(RetrievedCaptions(), drafts=["a dog"])] == [0.0]


def test_other_languages_agree_too() -> None:
    texts = ("собака бежит по траве", "большая собака бежит по траве", "кошка спит")
    found = consensus(
        RetrievedCaptions(texts, np.full(3, 0.5, np.float32), ("",) * 3, np.arange(3)), word_weights(texts)
    )
    assert found is not None
    assert found.text in texts[:2]


def test_of_many_captions_a_sample_is_weighed() -> None:
    assert word_weights([f"dog {number}" for number in range(25_000)]).documents == 12_500
    with pytest.raises(InputError, match="two pictures or more"):
        word_weights(["a dog"])


@pytest.mark.parametrize("wrong", [{"voters": 0}, {"candidates": 0}, {"temperature": 0}, {"plain": -1}])
def test_what_cannot_be_agreement(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="at least one voter"):
        MBRConfig(**wrong)  # type: ignore[arg-type]
