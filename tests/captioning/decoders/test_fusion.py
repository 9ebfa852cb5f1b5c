from __future__ import annotations

from typing import get_args

import pytest
import torch

from mmalign.captioning.decoders.fusion import FusionName, make_fusion
from mmalign.errors import InputError

NAMES = get_args(FusionName)
WIDTH = 32


def slots(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    text_mask = torch.tensor([[True, True, True], [True, False, False]])
    return torch.randn(2, 2, WIDTH), torch.ones(2, 2, dtype=torch.bool), torch.randn(2, 3, WIDTH), text_mask


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_masks(name: FusionName) -> None:
    image, image_mask, text, text_mask = slots()
    memory, mask = make_fusion(name, width=WIDTH, heads=4)(image, image_mask, text, text_mask)
    assert memory.shape == (2, 6, WIDTH)
    assert mask.tolist() == [[True] * 6, [True, True, True, True, False, False]]


def test_parameters_are_matched() -> None:
    counts = {name: sum(p.numel() for p in make_fusion(name, width=256, heads=4).parameters()) for name in NAMES}
    assert max(counts.values()) / min(counts.values()) < 1.01, counts


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", ["image", "text", "both"])
def test_a_missing_modality_changes_nothing_however_it_is_filled(name: FusionName, missing: str) -> None:
    fusion = make_fusion(name, width=WIDTH, heads=4).eval()
    image, image_mask, text, text_mask = slots()
    if missing != "text":
        image_mask = torch.zeros_like(image_mask)
    if missing != "image":
        text_mask = torch.zeros_like(text_mask)
    first, mask = fusion(image, image_mask, text, text_mask)
    other_image, other_text = (torch.where(m[..., None], x, 7.0) for x, m in ((image, image_mask), (text, text_mask)))
    second, _ = fusion(other_image, image_mask, other_text, text_mask)
    assert torch.isfinite(first).all()
    assert mask[:, 0].all()
    torch.testing.assert_close(first[mask], second[mask])


@pytest.mark.parametrize("name", ["gated", "attention", "transformer"])
def test_modalities_see_each_other(name: FusionName) -> None:
    fusion = make_fusion(name, width=WIDTH, heads=4).eval()
    image, image_mask, text, text_mask = slots()
    first, _ = fusion(image, image_mask, text, text_mask)
    second, _ = fusion(image, image_mask, text + torch.randn_like(text), text_mask)
    assert (first[:, 1:3] - second[:, 1:3]).abs().max() > 1e-3


def test_concat_keeps_modalities_apart() -> None:
    fusion = make_fusion("concat", width=WIDTH, heads=4).eval()
    image, image_mask, text, text_mask = slots()
    first, _ = fusion(image, image_mask, text, text_mask)
    second, _ = fusion(image, image_mask, text + 1, text_mask)
    torch.testing.assert_close(first[:, 1:3], second[:, 1:3])


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="concat, gated, attention, transformer, got 'sum'"):
        make_fusion("sum", width=8, heads=2)  # type: ignore[arg-type]
