from __future__ import annotations

import math

import pytest

from mmalign.captioning.drafts import Draft
from mmalign.captioning.ranking import rank_drafts
from mmalign.metrics.cider import DocumentFrequencies, cider_d
from mmalign.metrics.ptb import caption_tokens

CONTEXT = ["a dog runs in the snow", "a brown dog in the snow", "a man on a bike", "..."]
DRAFTS = [Draft("a man rides", -3.0, -0.9), Draft("a dog in the snow", -9.0, -1.5), Draft("a cat", -1.0, -0.2)]
FREQUENCIES = DocumentFrequencies.of([[caption_tokens(caption)] for caption in [*CONTEXT[:3], "the cat sleeps"]])


def test_score_is_weighted_agreement_and_likelihood() -> None:
    voters = [caption_tokens(caption) for caption in CONTEXT[:3]]
    weights = [math.exp(-rank / 60) for rank in range(3)]
    ranked = rank_drafts(DRAFTS, CONTEXT, FREQUENCIES)
    for draft in ranked:
        # One reference at a time is what agreement with each voter means.
        each = [
            float(cider_d([caption_tokens(draft.text)] * 2, [[voter]] * 2, frequencies=FREQUENCIES)[0])
            for voter in voters
        ]
        agreement = sum(w * e for w, e in zip(weights, each, strict=True)) / sum(weights)
        before = next(old for old in DRAFTS if old.text == draft.text)
        assert draft.score == pytest.approx(agreement + 0.2 * before.score, abs=1e-6)
        assert draft.log_likelihood == before.log_likelihood
    assert ranked[0].text == "a dog in the snow"
    assert [d.score for d in ranked] == sorted((d.score for d in ranked), reverse=True)


@pytest.mark.parametrize(("context", "frequencies"), [([], FREQUENCIES), (["...", ""], FREQUENCIES), (CONTEXT, None)])
def test_without_votes_likelihood_decides(context: list[str], frequencies: DocumentFrequencies | None) -> None:
    assert [draft.text for draft in rank_drafts(DRAFTS, context, frequencies)] == [
        "a cat", "a man rides", "a dog in the snow",
    ]  # fmt: skip
    assert rank_drafts([], CONTEXT, FREQUENCIES) == []
