"""The bank of text queries."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from mmalign.collection.sample_queries import synthetic_queries


def test_differ_and_are_sentences() -> None:
    bank = synthetic_queries()
    assert len(bank) == len(set(bank)) == 2000
    assert all(re.fullmatch(r"[a-z][a-z\- ]+[a-z]", one) for one in bank), "words alone, one space between"
    assert not [one for one in bank if "  " in one or re.search(r"\b(a [aeiou]|an [^aeiou])", one)]
    lengths = [len(one.split()) for one in bank]
    assert min(lengths) <= 2
    assert max(lengths) >= 10
    assert len({word for one in bank for word in one.split()}) > 400


def test_are_the_same_in_every_process() -> None:
    code = "from mmalign.collection.sample_queries import synthetic_queries; print('|'.join(synthetic_queries(50)))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other.split("|") == synthetic_queries(50)
    assert synthetic_queries(50) == synthetic_queries(2000)[:50]


def test_another_seed_gives_other_sentences() -> None:
    assert len(set(synthetic_queries(500, seed=1)) & set(synthetic_queries(500, seed=2))) < 50


@pytest.mark.parametrize("count", [0, 1])
def test_counts(count: int) -> None:
    assert len(synthetic_queries(count)) == count


def test_many_forms_are_spread_evenly() -> None:
    bank = synthetic_queries(2000)
    for part in (" while ", "a photo of ", "two ", " in the snow", " next to ", " a dog "):
        assert any(part in f" {one} " for one in bank), part
