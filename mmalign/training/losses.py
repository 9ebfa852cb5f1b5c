"""Contrastive losses over pictures with several captions each."""

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
    own = owner[:, None] == torch.arange(len(images), device=images.device)
    others = torch.logsumexp(scores.masked_fill(own, float("-inf")), dim=0)
    positive = scores.gather(1, owner[:, None]).squeeze(1)
    to_text = (torch.logaddexp(positive, others[owner]) - positive).mean()
    return (to_image + to_text) / 2
