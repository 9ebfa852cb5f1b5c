"""The decoder's scores against a naive re-computation, and with a cache against without."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmalign.captioning.decoders.gpt import Cache
from mmalign.captioning.decoders.model import MultimodalTransformer, pad_targets
from mmalign.captioning.decoders.tokenizer import BEGIN, END, PADDING
from mmalign.captioning.ngram_votes import gather_votes, vote_features
from mmalign.errors import InputError
from tests.captioning.decoders.toy import CONFIG, toy_inputs, toy_model

TOKENS = torch.tensor([[BEGIN, 5, 7, 5, 9], [BEGIN, 4, 4, 8, 11], [BEGIN, 6, 39, 3, 10]])


def naive_norm(x: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    mean, deviation = x.mean(), math.sqrt(x.var() + norm.eps)
    return (x - mean) / deviation * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def naive_linear(x: np.ndarray, linear: torch.nn.Linear) -> np.ndarray:
    return linear.weight.detach().double().numpy() @ x + linear.bias.detach().double().numpy()


def naive_attention(query: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray], heads: int) -> np.ndarray:
    size = len(query) // heads
    parts = []
    for head in range(heads):
        cut = slice(head * size, (head + 1) * size)
        scores = [float(query[cut] @ key[cut]) / math.sqrt(size) for key in keys]
        top = max(scores)
        weights = [math.exp(score - top) for score in scores]
        parts.append(sum(w * value[cut] for w, value in zip(weights, values, strict=True)) / sum(weights))
    return np.concatenate(parts)


def naive_scores(model: MultimodalTransformer, memory: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Scores after the last of the tokens, one place at a time, without evidence."""
    decoder = model.decoder
    words = decoder.words.weight.detach().double().numpy()
    states = [words[t] + decoder.positions.weight.detach().double().numpy()[i] for i, t in enumerate(tokens)]
    width = len(states[0])
    for block in decoder.blocks:
        own = [naive_linear(naive_norm(x, block.norms[0]), block.own) for x in states]
        queries, keys, values = ([x[i * width : (i + 1) * width] for x in own] for i in range(3))
        memories = [naive_linear(slot, block.key_value) for slot in memory]
        fresh = []
        for place, x in enumerate(states):
            seen = naive_attention(queries[place], keys[: place + 1], values[: place + 1], block.heads)
            x = x + naive_linear(seen, block.own_out)
            query = naive_linear(naive_norm(x, block.norms[1]), block.query)
            seen = naive_attention(query, [m[:width] for m in memories], [m[width:] for m in memories], block.heads)
            x = x + naive_linear(seen, block.memory_out)
            inner = naive_linear(naive_norm(x, block.norms[2]), block.dense[0])
            inner = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in inner])
            fresh.append(x + naive_linear(inner, block.dense[2]))
        states = fresh
    return words @ naive_norm(states[-1], decoder.norm) + decoder.bias.detach().double().numpy()


def naive_evidence(captions: list[list[int]], weights: list[float], earlier: int, last: int) -> np.ndarray:
    """The three features for all words of the vocabulary, by looping over the captions."""
    features = np.zeros((3, CONFIG.vocabulary))
    for order in range(3):
        seen, total = np.zeros(CONFIG.vocabulary), 0.0
        for tokens, weight in zip(captions, weights, strict=True):
            padded = [PADDING, BEGIN, *tokens, END]
            for place in range(2, len(padded)):
                if (order < 1 or padded[place - 1] == last) and (order < 2 or padded[place - 2] == earlier):
                    seen[padded[place]] += weight
                    total += weight
        share = seen if order == 0 else seen / (total + 0.02)
        features[order] = np.log(1 + share / 0.002)
    return features


def test_scores_equal_a_naive_recomputation() -> None:
    model, inputs = toy_model(), toy_inputs()
    with torch.no_grad():
        memory, mask = model.remember(inputs)
        scores = model.decoder(TOKENS, memory, mask)
    for row in range(len(TOKENS)):
        there = memory[row][mask[row]].double().numpy()
        for place in range(TOKENS.shape[1]):
            expected = naive_scores(model, there, TOKENS[row, : place + 1].tolist())
            np.testing.assert_allclose(scores[row, place].numpy(), expected, rtol=2e-4, atol=2e-4)


def test_evidence_equals_counting_by_hand() -> None:
    captions = [[5, 7, 5, 7, 9], [7, 5], [4, 4, 4]]
    evidence = gather_votes([captions, [[8]], []])
    weights = [math.exp(-rank / 16) for rank in range(3)]
    weights = [weight / sum(weights) for weight in weights]
    features = vote_features(evidence, TOKENS, torch.cat([torch.zeros(3, 1).long(), TOKENS[:, :-1]], dim=1))
    words = evidence.words[0].tolist()
    for place, last in enumerate(TOKENS[0].tolist()):
        earlier = TOKENS[0, place - 1].item() if place else PADDING
        expected = naive_evidence(captions, weights, int(earlier), last)
        for column, word in enumerate(words):
            np.testing.assert_allclose(features[:, 0, place, column], expected[:, word], rtol=1e-4, atol=1e-4)
        assert {word for word in range(CONFIG.vocabulary) if expected[0, word]} <= set(words)
    assert not features[:, 2].any(), "a picture without captions has no evidence"


def test_evidence_raises_the_words_of_the_context_by_its_weights() -> None:
    model, inputs = toy_model(), toy_inputs()
    with torch.no_grad():
        memory, mask = model.remember(inputs)
        plain = model.decoder(TOKENS, memory, mask)
        informed = model.decoder(TOKENS, memory, mask, inputs.votes)
        x = model.decoder.dropout(model.decoder.words(TOKENS) + model.decoder.positions(torch.arange(5)))
        cache = Cache()
        for layer, block in enumerate(model.decoder.blocks):
            x = block(x, memory, mask, cache, layer)
        trust = torch.nn.functional.softplus(model.decoder.trust(model.decoder.norm(x)) + 0.5) / 3
    previous = torch.cat([torch.zeros(3, 1).long(), TOKENS[:, :-1]], dim=1)
    features = vote_features(inputs.votes, TOKENS, previous)
    for row in range(3):
        for column, word in enumerate(inputs.votes.words[row].tolist()):
            if word != PADDING:
                expected = plain[row, :, word] + (features[:, row, :, column] * trust[row].T).sum(0)
                torch.testing.assert_close(informed[row, :, word], expected, rtol=1e-4, atol=1e-4)
        others = [w for w in range(CONFIG.vocabulary) if w not in inputs.votes.words[row].tolist() or w == PADDING]
        torch.testing.assert_close(informed[row][:, others], plain[row][:, others])


@pytest.mark.parametrize("steps", [(1, 1, 1, 1, 1), (2, 3), (1, 4)])
def test_cached_and_uncached_scores_agree(steps: tuple[int, ...]) -> None:
    model, inputs = toy_model(), toy_inputs()
    with torch.no_grad():
        whole = model(inputs, TOKENS)
        memory, mask = model.remember(inputs)
        cache, start, parts = Cache(), 0, []
        for count in steps:
            parts.append(model.decoder(TOKENS[:, start : start + count], memory, mask, inputs.votes, cache))
            start += count
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)
    assert cache.length == TOKENS.shape[1]


def test_later_words_do_not_change_earlier_scores() -> None:
    model, inputs = toy_model(), toy_inputs()
    changed = TOKENS.clone()
    changed[:, 3:] = 20
    with torch.no_grad():
        torch.testing.assert_close(model(inputs, TOKENS)[:, :3], model(inputs, changed)[:, :3])


def test_loss_is_the_likelihood_of_the_captions() -> None:
    model, inputs = toy_model(), toy_inputs()
    captions = [[5, 7, 9], [4], [6, 8]]
    targets = pad_targets(captions, longest=CONFIG.longest)
    with torch.no_grad():
        loss = float(model.loss(inputs, targets))
        total, count = 0.0, 0
        for row, caption in enumerate(captions):
            words = [BEGIN, *caption, END]
            table = torch.tensor([words[:-1]]).repeat(3, 1)
            scores = model(inputs, table)[row].double()
            for place, word in enumerate(words[1:]):
                total -= float(scores[place, word]) - math.log(sum(math.exp(s) for s in scores[place].tolist()))
                count += 1
    assert loss == pytest.approx(total / count, rel=1e-5)


def test_words_are_tied() -> None:
    model = toy_model()
    assert model.text_encoder.words is model.decoder.words
    names = [name for name, _ in model.named_parameters() if tuple(_.shape) == (CONFIG.vocabulary, CONFIG.width)]
    assert len(names) == 1, "one table of words for input, output and retrieved captions"


def test_too_many_tokens_are_refused() -> None:
    model, inputs = toy_model(), toy_inputs()
    with pytest.raises(InputError, match="at most 12 tokens, got 13"):
        model(inputs, torch.full((3, 13), 5))
