"""Scores of captions: each equal to the package whose figures papers print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError
from mmalign.metrics.bleu import bleu_counts, bleu_from_counts, corpus_bleu, word_runs
from mmalign.metrics.caption import FIGURES, score_captions
from mmalign.metrics.cider import DocumentFrequencies, WordRuns, cider_d, cider_table
from mmalign.metrics.clipscore import clip_score, ref_clip_score
from mmalign.metrics.ptb import Tokens, caption_tokens
from mmalign.metrics.rouge import longest_common, rouge_l

WORDS = ["a", "a", "a", "dog", "dog", "man", "red", "ball", "runs", "on", "the", "the", "grass", "with", "two"]


def corpus(rng: np.random.Generator, pictures: int = 300) -> tuple[list[Tokens], list[list[Tokens]]]:
    """Sentences of common words, of 1 to 14 words, with repetitions; 1 to 5 references a picture."""

    def sentence() -> Tokens:
        return tuple(rng.choice(WORDS, size=int(rng.integers(1, 15))))

    references = [[sentence() for _ in range(int(rng.integers(1, 6)))] for _ in range(pictures)]
    return [sentence() for _ in range(pictures)], references


def as_coco(captions: Sequence[Sequence[Tokens]]) -> dict[int, list[str]]:
    return {number: [" ".join(tokens) for tokens in own] for number, own in enumerate(captions)}


def test_equal_to_pycocoevalcap(rng: np.random.Generator) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = corpus(rng)
    # A candidate that has nothing of its references, and one that has all.
    candidates[0], candidates[1] = ("zebra",), references[1][0]
    wanted, said = as_coco(references), as_coco([[candidate] for candidate in candidates])
    bleu, _ = Bleu().compute_score(wanted, said, verbose=0)
    cider, each = Cider().compute_score(wanted, said)
    rouge, lines = Rouge().compute_score(wanted, said)
    assert corpus_bleu(candidates, references) == pytest.approx(bleu, abs=1e-9)
    assert cider_d(candidates, references) == pytest.approx(each, abs=1e-9)
    assert rouge_l(candidates, references) == pytest.approx(lines, abs=1e-9)
    # And all at once, from the sentences themselves.
    texts = [" ".join(candidate) for candidate in candidates]
    told = score_captions(texts, [[" ".join(one) for one in own] for own in references]).to_dict()
    expected = [cider, *bleu, rouge]
    assert [told[name] for name in FIGURES] == pytest.approx([100 * value for value in expected], abs=1e-4)
    assert told["n"] == 300


def test_bleu_equal_to_sacrebleu(rng: np.random.Generator) -> None:
    import sacrebleu

    candidates, references = corpus(rng)
    most = max(map(len, references))
    columns = [[" ".join(own[i]) if i < len(own) else None for own in references] for i in range(most)]
    lines = [" ".join(candidate) for candidate in candidates]
    for order in range(1, 5):
        metric = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, effective_order=False)
        theirs = metric.corpus_score(lines, columns).score
        assert 100 * corpus_bleu(candidates, references)[order - 1] == pytest.approx(theirs, abs=1e-6)


def test_the_shorter_of_two_closest_references_counts() -> None:
    row = bleu_counts([("a",) * 5], [[("a",) * 7, ("a",) * 3]])[0]
    assert row.tolist() == [5, 4, 3, 2, 5, 4, 3, 2, 5, 3]


def test_a_table_holds_what_pairs_are(rng: np.random.Generator) -> None:
    candidates, references = corpus(rng, 20)
    flat = [one for own in references for one in own]
    frequencies = DocumentFrequencies.of(references)
    runs = WordRuns(frequencies)
    first = runs.vectors(candidates)
    table = cider_table(first, runs.vectors(flat))
    for row, candidate in enumerate(candidates):
        alone = cider_d([candidate] * len(flat), [[one] for one in flat], frequencies=frequencies)
        assert table[row] == pytest.approx(alone, abs=1e-9)


def test_resampling_equals_scoring_the_sample(rng: np.random.Generator) -> None:
    candidates, references = corpus(rng, 40)
    texts = [" ".join(one) for one in candidates]
    wanted = [[" ".join(one) for one in own] for own in references]
    frequencies = DocumentFrequencies.of([[caption_tokens(one) for one in own] for own in wanted])
    draws = rng.integers(40, size=(3, 40))
    found = score_captions(texts, wanted).resampled(draws)
    for number, draw in enumerate(draws):
        sample = score_captions([texts[i] for i in draw], [wanted[i] for i in draw], frequencies=frequencies)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(sample.figures())


def test_frozen_frequencies(tmp_path: Path, rng: np.random.Generator) -> None:
    candidates, references = corpus(rng, 30)
    frequencies = DocumentFrequencies.of(references)
    frequencies.write(tmp_path / "words.json")
    again = DocumentFrequencies.read(tmp_path / "words.json")
    assert again == frequencies
    whole = cider_d(candidates, references)
    # A part of the corpus has its own weights unless they are given.
    assert cider_d(candidates[:9], references[:9], frequencies=again) == pytest.approx(whole[:9])
    assert cider_d(candidates[:9], references[:9]) != pytest.approx(whole[:9])
    assert cider_d(candidates[:1], references[:1], frequencies=again) == pytest.approx(whole[:1])


def test_one_picture_alone_has_no_cider() -> None:
    with pytest.raises(InputError, match=r"of 1 picture nothing can be told.*two pictures or more"):
        score_captions(["a dog"], [["a dog"]])


@pytest.mark.parametrize("content", ["", "[]", '{"documents": 3}', '{"documents": 3, "counts": {"a": "x"}}'])
def test_frequencies_that_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(content)
    with pytest.raises(InputError, match="document frequencies"):
        DocumentFrequencies.read(path)


def test_wrong_counts() -> None:
    with pytest.raises(InputError, match="got 1 candidates and references for 2"):
        corpus_bleu([("a",)], [[("a",)], [("b",)]])
    with pytest.raises(InputError, match="1 of 2 candidates have no reference, the first is number 1"):
        rouge_l([("a",), ("b",)], [[("a",)], []])
    with pytest.raises(InputError, match="got 0 candidates"):
        score_captions([], [])
    with pytest.raises(InputError, match="got a text alone"):
        score_captions(["a dog"], ["a dog"])  # type: ignore[list-item]


def test_captions_without_words_and_of_ten_thousand() -> None:
    wanted = [["A dog runs."], ["Two cats sleep."]]
    told = score_captions(["...", ""], wanted).to_dict()
    assert told == {"n": 2, **dict.fromkeys(FIGURES, 0.0)}
    endless = score_captions(["dog " * 10_000, "Two cats sleep."], wanted)
    assert endless.cider[0] == 0
    assert endless.rouge_l[1] == 1


def test_longest_common_against_a_table(rng: np.random.Generator) -> None:
    for _ in range(50):
        first, second = (tuple(rng.choice(WORDS, size=int(rng.integers(0, 12)))) for _ in range(2))
        table = np.zeros((len(first) + 1, len(second) + 1), int)
        for i, one in enumerate(first, 1):
            for j, other in enumerate(second, 1):
                table[i, j] = table[i - 1, j - 1] + 1 if one == other else max(table[i - 1, j], table[i, j - 1])
        assert longest_common(first, second) == table[-1, -1]


def test_runs_of_words() -> None:
    assert word_runs(("a", "b", "a")) == {
        ("a",): 2, ("b",): 1, ("a", "b"): 1, ("b", "a"): 1, ("a", "b", "a"): 1,
    }  # fmt: skip


def test_sums_of_counts_are_any_part_of_the_corpus(rng: np.random.Generator) -> None:
    candidates, references = corpus(rng, 10)
    rows = bleu_counts(candidates, references)
    assert bleu_from_counts(rows[3:7]) == pytest.approx(corpus_bleu(candidates[3:7], references[3:7]))


def test_clip_score_by_hand(rng: np.random.Generator) -> None:
    images, captions = rng.normal(size=(4, 8)), rng.normal(size=(4, 8))
    references = [rng.normal(size=(number + 1, 8)) for number in range(4)]
    first, second = clip_score(images, captions), ref_clip_score(images, captions, references)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    for row in range(4):
        alone = 2.5 * max(0, cosine(images[row], captions[row]))
        best = max(0, *(cosine(captions[row], one) for one in references[row]))
        assert first[row] == pytest.approx(alone, abs=1e-6)
        assert second[row] == pytest.approx(2 * alone * best / (alone + best) if alone + best else 0, abs=1e-6)
    with pytest.raises(DimensionError):
        clip_score(images, captions[:, :5])
    with pytest.raises(InputError, match="got 4 and 3"):
        ref_clip_score(images, captions, references[:3])
    with pytest.raises(InputError, match="number 0 has no reference"):
        ref_clip_score(images, captions, [np.zeros((0, 8)), *references[1:]])


def test_frequencies_are_plain_json(tmp_path: Path) -> None:
    DocumentFrequencies.of([[("a", "dog")], [("a", "cat")]]).write(tmp_path / "words.json")
    told = json.loads((tmp_path / "words.json").read_text())
    assert told == {"documents": 2, "counts": {"a": 2, "dog": 1, "a dog": 1, "cat": 1, "a cat": 1}}
