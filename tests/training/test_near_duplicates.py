"""What is kept out of a training because it resembles what is measured on."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmalign.training.contrastive.config import DataConfig
from mmalign.training.near_duplicates import fuzzy_likeness, near_duplicates, same_words

SENTENCES = [
    "A dog jumps over the fence .",
    "the fence over jumping a dog",
    "Two dogs jumped over a wooden fence",
    "A man rides a bicycle .",
    "!?",
    "zebra",
]
HELD_OUT = ["a dog is jumping over the fence", "a woman rides a horse", "..."]


def naive_likeness(sentences: list[str], held_out: list[str]) -> list[float]:
    stems = [{word[:4] for word in re.findall(r"\w+", text.lower())} for text in [*sentences, *held_out]]
    documents = Counter(stem for text in stems for stem in text)
    weight = {stem: math.log((1 + len(stems)) / count) for stem, count in documents.items()}
    found = []
    for text in stems[: len(sentences)]:
        best = 0.0
        for other in stems[len(sentences) :]:
            norm = math.sqrt(sum(weight[s] ** 2 for s in text) * sum(weight[s] ** 2 for s in other))
            best = max(best, sum(weight[s] ** 2 for s in text & other) / norm if norm else 0.0)
        found.append(best)
    return found


def test_near_duplicates_look_past_the_common_mean(rng: np.random.Generator) -> None:
    train = rng.standard_normal((30, 16)).astype(np.float32) + 50
    held_out = np.stack([train[4] + 0.01, train[9] * 1.0001, rng.standard_normal(16) + 50]).astype(np.float32)
    assert np.flatnonzero(near_duplicates(train, held_out, threshold=0.9)).tolist() == [4, 9]
    assert not near_duplicates(train, held_out[:0], threshold=0.9).any()


def test_same_words_ignores_case_spacing_and_punctuation() -> None:
    found = same_words(["A dog runs .", "a dog  runs", "a dogs run", "runs a dog"], ["A DOG, runs!"])
    assert found.tolist() == [True, True, False, False]


def test_fuzzy_likeness_equals_a_naive_loop() -> None:
    found = fuzzy_likeness(SENTENCES, HELD_OUT)
    np.testing.assert_allclose(found, naive_likeness(SENTENCES, HELD_OUT), atol=1e-6)
    # Neither order nor endings matter.
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] > 0.7 > found[3]
    assert found[4:].tolist() == [0, 0]
    assert fuzzy_likeness([], HELD_OUT).shape == (0,)
    assert fuzzy_likeness(SENTENCES, []).tolist() == [0] * 6


def test_many_sentences_are_compared_in_blocks(rng: np.random.Generator) -> None:
    words = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(400)]
    sentences = [" ".join(rng.choice(words, 7)) for _ in range(5000)]
    held_out = [*sentences[4095:4098], " ".join(rng.choice(words, 7))]
    found = fuzzy_likeness(sentences, held_out)
    np.testing.assert_allclose(found[4095:4098], 1, atol=1e-5)
    some = rng.choice(5000, 40, replace=False)
    documents = Counter(s for text in [*sentences, *held_out] for s in {w[:4] for w in text.split()})
    vocabulary = {stem: place for place, stem in enumerate(documents)}
    weight = np.log(5005 / np.array(list(documents.values())))

    def vectors(texts: list[str]) -> np.ndarray:
        table = np.zeros((len(texts), len(vocabulary)))
        for row, text in enumerate(texts):
            for word in text.split():
                table[row, vocabulary[word[:4]]] = weight[vocabulary[word[:4]]]
        return table / np.linalg.norm(table, axis=1, keepdims=True)

    expected = (vectors([sentences[i] for i in some]) @ vectors(held_out).T).max(axis=1)
    np.testing.assert_allclose(found[some], expected, atol=1e-5)


def test_no_twin_of_a_measured_sentence_is_left_in_the_shared_sentences(shared: Path) -> None:
    rows = map(json.loads, (shared / "data/flickr8k/manifest.jsonl").read_text().splitlines())
    held_out = [caption for row in rows if row["split"] in ("dev", "boxes") for caption in row["captions"]]
    lines = (shared / "data/text/flickr8k.txt").read_text().splitlines()
    sentences = list(dict.fromkeys(line for line in lines if re.search(r"\w", line)))
    threshold = DataConfig().fuzzy_twins
    dropped = same_words(sentences, held_out) | (fuzzy_likeness(sentences, held_out) >= threshold)
    assert 0.01 < dropped.mean() < 0.1
    left = [sentence for sentence, out in zip(sentences, dropped, strict=True) if not out]

    # Another measure of likeness: the same words but for stop words, endings, order and repetition.
    def content(text: str) -> frozenset[str]:
        stop = {"a", "an", "the", "in", "on", "of", "is", "are", "and", "with", "at", "to"}
        return frozenset(word[:4] for word in re.findall(r"\w+", text.lower()) if word not in stop)

    # A sentence of a word or two has a twin everywhere.
    measured = {found for text in held_out if len(found := content(text)) > 2}
    assert [text for text in left if content(text) in measured] == []
    assert sum(content(text) in measured for text in sentences) > 20
