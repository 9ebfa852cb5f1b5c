"""The comparison of fusions: who stands in for whom, and the rows that are told."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.caption_fusion import compare, strangers
from mmalign.metrics.caption import score_captions

WANTED = [["a dog runs in snow"], ["two men ride horses"], ["a boy on a bed"], ["a wet dog"]]


@pytest.mark.parametrize("count", [2, 3, 50])
def test_everyone_gets_another_one(count: int) -> None:
    partner = strangers(count)
    assert sorted(partner.tolist()) == list(range(count))
    assert (partner != np.arange(count)).all()


def test_differences_are_those_of_the_figures() -> None:
    right = score_captions([own[0] for own in WANTED], WANTED)
    wrong = score_captions([own[0] for own in reversed(WANTED)], WANTED)
    rows = compare({("transformer", "both"): (right, 1.0), ("transformer", "no vector"): (wrong, 2.0),
                    ("concat", "both"): (wrong, 3.0)})  # fmt: skip
    gap = wrong.figures()["cider"] - right.figures()["cider"]
    assert rows["transformer, both"]["CIDEr"] == round(right.figures()["cider"], 1)
    assert rows["transformer, no vector"]["CIDEr over both"].startswith(f"{gap:+.1f} (")
    assert rows["transformer, no vector"]["CIDEr over transformer"] == ""
    assert rows["concat, both"]["CIDEr over transformer"].startswith(f"{gap:+.1f} (")
    low, high = rows["concat, both"]["CIDEr over transformer"].split("(")[1].rstrip(")").split(" to ")
    assert float(low) <= gap <= float(high)
