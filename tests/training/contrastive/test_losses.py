"""Each loss against a loop that follows its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmalign.training.contrastive.losses import (
    caption_contrastive_loss,
    distillation_loss,
    hardest_negative_loss,
    sigmoid_loss,
)

OWNER = np.array([0, 0, 1, 2, 2, 2, 3])


def unit(rng: np.random.Generator, rows: int, dim: int = 6) -> np.ndarray:
    x = rng.standard_normal((rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return unit(rng, 4), unit(rng, 7)


def tensors(images: np.ndarray, texts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.from_numpy(images), torch.from_numpy(texts), torch.from_numpy(OWNER)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_contrastive_loss_equals_a_naive_loop(batch: tuple[np.ndarray, np.ndarray], smoothing: float) -> None:
    (images, texts), scale = batch, 5.0
    to_image, to_text = [], []
    for caption, picture in enumerate(OWNER):
        scores = [scale * float(texts[caption] @ image) for image in images]
        total = math.log(sum(math.exp(score) for score in scores))
        share = [smoothing / 4 + (1 - smoothing) * (i == picture) for i in range(4)]
        to_image.append(sum(p * (total - score) for p, score in zip(share, scores, strict=True)))
        positive = scores[picture]
        negatives = [scale * float(texts[t] @ images[picture]) for t in range(7) if OWNER[t] != picture]
        to_text.append(math.log(math.exp(positive) + sum(map(math.exp, negatives))) - positive)
    expected = (np.mean(to_image) + np.mean(to_text)) / 2
    found = caption_contrastive_loss(*tensors(images, texts), scale, label_smoothing=smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_one_caption_a_picture_is_clips_own_loss(rng: np.random.Generator) -> None:
    images, texts = torch.from_numpy(unit(rng, 9)), torch.from_numpy(unit(rng, 9))
    logits = 3.0 * texts @ images.T
    own = torch.arange(9)
    expected = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    assert caption_contrastive_loss(images, texts, own, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_sigmoid_loss_equals_a_naive_loop(batch: tuple[np.ndarray, np.ndarray]) -> None:
    (images, texts), scale, bias = batch, 4.0, -1.5
    total = 0.0
    for caption, picture in enumerate(OWNER):
        for other in range(4):
            logit = scale * float(texts[caption] @ images[other]) + bias
            total += math.log1p(math.exp(-logit if other == picture else logit))
    found = sigmoid_loss(*tensors(images, texts), scale, bias)
    assert found.item() == pytest.approx(total / 7, rel=1e-5)


def test_the_hardest_negative_loss_equals_a_naive_loop(batch: tuple[np.ndarray, np.ndarray]) -> None:
    images, texts = batch
    total = 0.0
    for caption, picture in enumerate(OWNER):
        positive = float(texts[caption] @ images[picture])
        pictures = [float(texts[caption] @ images[i]) for i in range(4) if i != picture]
        captions = [float(texts[t] @ images[picture]) for t in range(7) if OWNER[t] != picture]
        total += max(0.0, 0.3 + max(pictures) - positive) + max(0.0, 0.3 + max(captions) - positive)
    found = hardest_negative_loss(*tensors(images, texts), margin=0.3)
    assert found.item() == pytest.approx(total / 7, rel=1e-5)


def test_no_triplet_loss_where_all_is_told_apart() -> None:
    eye = torch.eye(4)
    assert hardest_negative_loss(eye, eye, torch.arange(4), margin=0.9).item() == 0


def test_the_distillation_loss_equals_a_naive_loop(rng: np.random.Generator) -> None:
    student, teacher = rng.normal(0, 2, (5, 3)), rng.normal(0, 2, (5, 3))

    def divergence(own: np.ndarray, taught: np.ndarray) -> float:
        total = 0.0
        for mine, right in zip(own, taught, strict=True):
            p = np.exp(right) / np.exp(right).sum()
            q = np.exp(mine) / np.exp(mine).sum()
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        return total / len(own)

    expected = (divergence(student, teacher) + divergence(student.T, teacher.T)) / 2
    assert distillation_loss(torch.from_numpy(student), torch.from_numpy(teacher)).item() == pytest.approx(expected)
    assert distillation_loss(torch.from_numpy(teacher), torch.from_numpy(teacher)).item() == pytest.approx(0, abs=1e-9)
