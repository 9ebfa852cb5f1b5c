"""Contrastive losses over pictures with several captions each, and distillation from teachers."""

from __future__ import annotations

import torch
from torch.nn import functional


def caption_contrastive_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    owner: torch.Tensor,
    scale: torch.Tensor | float,
    *,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """CLIP's loss where a picture may have several captions, none of which is ever a negative for its own picture.

    Each caption is told apart from the other pictures, and each (picture, caption) pair from the captions of the
    other pictures.

    Args:
        images: Shape (b, dim), rows of length 1.
        texts: Shape (m, dim), rows of length 1.
        owner: The picture of each caption, shape (m,), int64 from 0 to b - 1; each picture has one or more.
        scale: Inverse temperature.
        label_smoothing: Share of a caption's probability that is spread over all pictures.

    Returns:
        The mean of the two directions, a scalar.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021; the masked
    positives are those of Khosla et al., Supervised Contrastive Learning, 2020, summed outside the logarithm.
    """
    scores = scale * texts @ images.T
    to_image = functional.cross_entropy(scores, owner, label_smoothing=label_smoothing)
    others = torch.logsumexp(scores.masked_fill(own_pairs(owner, len(images)), float("-inf")), dim=0)
    positive = scores.gather(1, owner[:, None]).squeeze(1)
    to_text = (torch.logaddexp(positive, others[owner]) - positive).mean()
    return (to_image + to_text) / 2


def sigmoid_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    owner: torch.Tensor,
    scale: torch.Tensor | float,
    bias: torch.Tensor | float,
) -> torch.Tensor:
    """SigLIP's loss: for every caption and picture, whether they belong together; all captions of one are positive.

    Args:
        images: Shape (b, dim), rows of length 1.
        texts: Shape (m, dim), rows of length 1.
        owner: The picture of each caption, shape (m,), int64 from 0 to b - 1.
        scale: Inverse temperature.
        bias: Added to every scaled cosine.

    Returns:
        The sum over the pictures, averaged over the captions, a scalar.

    Source: Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.
    """
    logits = scale * texts @ images.T + bias
    sign = own_pairs(owner, len(images)).to(logits.dtype) * 2 - 1
    return -functional.logsigmoid(sign * logits).sum(dim=1).mean()


def hardest_negative_loss(
    images: torch.Tensor, texts: torch.Tensor, owner: torch.Tensor, *, margin: float
) -> torch.Tensor:
    """The triplet loss on the hardest negative of the batch, in both directions.

    Args:
        images: Shape (b, dim), rows of length 1.
        texts: Shape (m, dim), rows of length 1.
        owner: The picture of each caption, shape (m,), int64 from 0 to b - 1.
        margin: By how much, as a cosine, a pair is to be nearer than either of its halves and its hardest negative.

    Returns:
        The mean over the captions of both directions' sum, a scalar.

    Source: Faghri et al., VSE++: Improving Visual-Semantic Embeddings with Hard Negatives, 2018.
    """
    scores = texts @ images.T
    negatives = scores.masked_fill(own_pairs(owner, len(images)), float("-inf"))
    positive = scores.gather(1, owner[:, None]).squeeze(1)
    to_image = (margin + negatives.max(dim=1).values - positive).clamp(min=0)
    to_text = (margin + negatives.max(dim=0).values[owner] - positive).clamp(min=0)
    return (to_image + to_text).mean()


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """How far the student's choice among the batch is from the teacher's, text by text and picture by picture.

    Args:
        student: Cosine over temperature of every text and picture, shape (m, b).
        teacher: The same of the teacher, or the mean of several.

    Returns:
        The mean of both directions' Kullback-Leibler divergence from the teacher's softmax, a scalar.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, on the rows and columns of the batch's
    similarities as in Wu et al., TinyCLIP, 2023.
    """

    def divergence(own: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        return functional.kl_div(
            functional.log_softmax(own, dim=1),
            functional.log_softmax(taught, dim=1),
            reduction="batchmean",
            log_target=True,
        )

    return (divergence(student, teacher) + divergence(student.T, teacher.T)) / 2


def own_pairs(owner: torch.Tensor, pictures: int) -> torch.Tensor:
    """Which text belongs to which picture.

    Args:
        owner: The picture of each text, shape (m,), int64.
        pictures: How many pictures, b.

    Returns:
        Shape (m, b), bool.
    """
    return owner[:, None] == torch.arange(pictures, device=owner.device)
