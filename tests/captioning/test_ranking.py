from __future__ import annotations

import math
import statistics

import pytest

from mmalign.captioning.decoders.base import Draft
from mmalign.captioning.ranking import rank_by_fit, rank_drafts
from mmalign.errors import InputError
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


def test_fit_and_score_count_in_standard_deviations() -> None:
    fits = [0.3, -4.0, 1.1]
    ranked = rank_by_fit(DRAFTS, fits, share=0.25)
    scores = [draft.score for draft in DRAFTS]
    for draft in ranked:
        row = next(i for i, old in enumerate(DRAFTS) if old.text == draft.text)
        expected = [(values[row] - statistics.fmean(values)) / statistics.pstdev(values) for values in (scores, fits)]
        assert draft.score == pytest.approx(0.75 * expected[0] + 0.25 * expected[1])
    assert [d.score for d in ranked] == sorted((d.score for d in ranked), reverse=True)
    # On another scale they are the same.
    moved = rank_by_fit(DRAFTS, [1000 * fit - 7 for fit in fits], share=0.25)
    assert [draft.text for draft in moved] == [draft.text for draft in ranked]


@pytest.mark.parametrize(
    ("share", "fits", "first"),
    [
        (0.0, [9, 5, 1], "a cat"),
        (1.0, [9, 5, 1], "a man rides"),
        (0.5, [3, 3, 3], "a cat"),
        (1.0, [1, 1, 1], "a man rides"),
    ],
)
def test_shares_at_the_ends_and_fits_that_are_equal(share: float, fits: list[float], first: str) -> None:
    ranked = rank_by_fit(DRAFTS, fits, share=share)
    assert ranked[0].text == first
    assert {draft.text for draft in ranked} == {draft.text for draft in DRAFTS}
    assert all(math.isfinite(draft.score) for draft in ranked)


def test_counts_and_shares_are_checked() -> None:
    assert rank_by_fit([], []) == []
    with pytest.raises(InputError, match="expected a fit for each of 3 drafts"):
        rank_by_fit(DRAFTS, [1.0])
    with pytest.raises(InputError, match="share from 0 to 1"):
        rank_by_fit(DRAFTS, [1.0, 2.0, 3.0], share=1.5)
