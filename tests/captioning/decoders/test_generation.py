"""Greedy, beam and nucleus against enumeration of every caption of a small vocabulary."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from mmalign.captioning.decoders.generation import GenerationConfig, generate
from mmalign.captioning.decoders.model import (
    DecoderConfig,
    DecoderInputs,
    MultimodalTransformer,
    make_inputs,
    make_model,
)
from mmalign.captioning.decoders.tokenizer import BEGIN, END
from mmalign.errors import InputError
from tests.captioning.decoders.toy import toy_inputs, toy_model

SMALL = DecoderConfig(dim=4, vocabulary=7, width=16, layers=2, heads=2, longest=6, slots=1, context=2, read=2)
LENGTH = 3


def small_model() -> MultimodalTransformer:
    torch.manual_seed(3)
    model = make_model(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.3
    return model.eval()


def small_inputs(count: int = 1) -> DecoderInputs:
    vectors = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    return make_inputs(vectors, [[[3, 4], [5]], [[6, 3, 3]]][:count])


def log_likelihood(model: MultimodalTransformer, inputs: DecoderInputs, tokens: list[int]) -> float:
    """Of the tokens after BEGIN, without a cache."""
    with torch.no_grad():
        scores = model(inputs, torch.tensor([[BEGIN, *tokens[:-1]]])).log_softmax(-1)[0]
    return float(sum(scores[place, token] for place, token in enumerate(tokens)))


def every_caption(model: MultimodalTransformer, inputs: DecoderInputs) -> dict[tuple[int, ...], float]:
    return {
        words: log_likelihood(model, inputs, [*words, END])
        for length in range(1, LENGTH + 1)
        for words in itertools.product(range(3, 7), repeat=length)
    }


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_likeliest_captions(penalty: float) -> None:
    model, inputs = small_model(), small_inputs()
    known = every_caption(model, inputs)
    ranked = sorted(known, key=lambda words: -known[words] / (len(words) + 1) ** penalty)
    # One place more than the captions compared: at the limit of its length a caption is cut, and has no end.
    writing = GenerationConfig("beam", count=64, longest=LENGTH + 1, length_penalty=penalty, blocked=0)
    found = [caption for caption in generate(model, inputs, writing)[0] if caption.ended]
    assert [caption.tokens for caption in found[:5]] == ranked[:5]
    for caption in found:
        assert caption.log_likelihood == pytest.approx(known[caption.tokens], abs=1e-4)


def test_beam_of_one_with_length_is_no_better_than_a_wide_one() -> None:
    model, inputs = small_model(), small_inputs()
    scores = [
        generate(model, inputs, GenerationConfig("beam", count=count, blocked=0))[0][0].score(1.0)
        for count in (1, 4, 16)
    ]
    assert all(wider >= narrow - 1e-5 for narrow, wider in itertools.pairwise(scores))


def test_greedy_takes_the_likeliest_word_each_time() -> None:
    model, inputs = toy_model(), toy_inputs(1)
    expected: list[int] = []
    while len(expected) < 10:
        with torch.no_grad():
            scores = model(inputs, torch.tensor([[BEGIN, *expected]]))[0, -1]
        scores[[0, 1] + ([END] if not expected else [])] = -torch.inf
        if int(scores.argmax()) == END:
            break
        expected.append(int(scores.argmax()))
    found = generate(model, inputs, GenerationConfig("greedy", blocked=0))
    assert found[0][0].tokens == tuple(expected)


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_pictures_together_and_alone_give_the_same(way: str) -> None:
    model, inputs = small_model(), small_inputs(2)
    writing = GenerationConfig(way, count=3)  # type: ignore[arg-type]
    together = generate(model, inputs, writing)
    vectors = inputs.vectors.numpy()
    for row, context in enumerate([[[3, 4], [5]], [[6, 3, 3]]]):
        alone = generate(model, make_inputs(vectors[row : row + 1], [context]), writing)[0]
        assert [c.tokens for c in alone] == [c.tokens for c in together[row]]


def test_draws_follow_the_probabilities_within_the_nucleus() -> None:
    model, inputs = small_model(), small_inputs()
    with torch.no_grad():
        scores = model(inputs, torch.tensor([[BEGIN]]))[0, -1]
    scores[[0, 1, END]] = -torch.inf
    probabilities = (scores / 0.7).softmax(-1).numpy()
    order = np.argsort(-probabilities)
    inside = order[: int(np.searchsorted(probabilities[order].cumsum(), 0.8)) + 1]
    assert 1 <= len(inside) < 4
    counts: Counter[int] = Counter()
    for seed in range(60):
        # Duplicates are dropped, so that each run tells of few draws: single words, many seeds.
        writing = GenerationConfig("nucleus", count=1, longest=1, temperature=0.7, nucleus=0.8, seed=seed)
        counts.update(caption.tokens[0] for caption in generate(model, inputs, writing)[0])
    assert set(counts) <= set(inside.tolist())
    expected = probabilities[inside] / probabilities[inside].sum()
    assert counts[int(inside[0])] / 60 == pytest.approx(expected[0], abs=0.2)


def test_draws_are_the_same_for_the_same_seed() -> None:
    model, inputs = toy_model(), toy_inputs()
    first, again, other = (
        generate(model, inputs, GenerationConfig("nucleus", count=6, seed=seed, nucleus=1.0)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("way", ["greedy", "beam", "nucleus"])
def test_no_run_of_three_comes_twice(way: str) -> None:
    model, inputs = toy_model(seed=1), toy_inputs(8)
    with torch.no_grad():
        # An untrained decoder likes to repeat itself, and hardly ever ends.
        model.decoder.bias[5:8] += 6
        model.decoder.bias[END] -= 9

    def repeats(blocked: int) -> int:
        count = 0
        writing = GenerationConfig(way, count=3, blocked=blocked)  # type: ignore[arg-type]
        for captions in generate(model, inputs, writing):
            for caption in captions:
                runs = [caption.tokens[i : i + 3] for i in range(len(caption.tokens) - 2)]
                count += len(runs) - len(set(runs))
        return count

    assert repeats(3) == 0
    assert repeats(0) > 0


def test_the_limit_of_length_is_kept_and_told() -> None:
    model, inputs = toy_model(), toy_inputs()
    with torch.no_grad():
        model.decoder.bias[END] -= 100
    for captions in generate(model, inputs, GenerationConfig("beam", count=2, longest=4)):
        assert all(len(caption.tokens) == 4 and not caption.ended for caption in captions)


def test_an_explicit_end_counts_in_the_likelihood() -> None:
    model, inputs = small_model(), small_inputs()
    for caption in generate(model, inputs, GenerationConfig("beam", count=4))[0]:
        tail = [END] if caption.ended else []
        expected = log_likelihood(model, inputs, [*caption.tokens, *tail])
        assert caption.log_likelihood == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [{"method": "best"}, {"count": 0}, {"temperature": 0.0}, {"nucleus": 0.0}, {"nucleus": 1.5}, {"longest": 0}],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        GenerationConfig(**wrong)  # type: ignore[arg-type]
