"""Heads that say where phrases are: read as they were written, refused where they cannot be, and the shipped one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders.registry import load_encoder
from mmalign.errors import InputError, ModelUnavailableError
from mmalign.grounding.cells import spot_maps
from mmalign.grounding.head import GroundingHead, Scoring, export_head, shipped_head
from mmalign.grounding.net import GroundingNet, NetSize
from mmalign.types import Box

DIM, CELLS = 6, 8
TINY = NetSize(inputs=10 + DIM, text=DIM, width=24, trunk=1, narrow=16, fused=1, hidden=16)


def test_a_head_is_read_as_it_was_written(tmp_path: Path, rng: np.random.Generator) -> None:
    net = GroundingNet(TINY).eval()
    tensors = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    told = {"size": TINY, "scoring": Scoring(existence=(1.0, 2.0, 3.0, 4.0)), "encoder": "abc", "metadata": {}}
    digest = export_head(tmp_path / "head.safetensors", tensors, **told)
    head = GroundingHead(tmp_path / "head.safetensors", sha256=digest)
    assert (head.fingerprint, head.scoring.existence) == ("abc", (1.0, 2.0, 3.0, 4.0))
    assert not head.fits(object())
    cells = rng.normal(size=(CELLS, CELLS, TINY.inputs)).astype(np.float32)
    text = rng.normal(size=(2, DIM)).astype(np.float32)
    found = head.locate(cells, text, size=(200, 100))
    with torch.inference_mode():
        mixed = net.picture(torch.from_numpy(cells)[None]).expand(2, -1, -1, -1)
        spot = torch.from_numpy(spot_maps(text, cells[..., -DIM:]))
        heat, _, boxes = net(mixed, torch.from_numpy(text), spot)
    np.testing.assert_allclose(found.heat, torch.sigmoid(heat), atol=5e-3)
    expected = np.clip(boxes.numpy(), 0, 1) * [200, 100, 200, 100]
    np.testing.assert_allclose(found.boxes, expected, atol=1.0)
    assert ((found.existence > 0) & (found.existence <= 1)).all()
    none = head.locate(cells, text[:0], size=(200, 100))
    assert none.score([Box(0, 0, 5, 5)]).shape == (0, 1)
    assert none.regions() == ()
    assert none.existence.shape == (0,)
    with pytest.raises(InputError, match="at least 1"):
        found.regions(most=0)


def test_heads_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(ModelUnavailableError):
        GroundingHead(path)
    tensors = {name: tensor.numpy() for name, tensor in GroundingNet(TINY).state_dict().items()}
    told: dict[str, Any] = {"size": TINY, "scoring": Scoring(), "encoder": "abc", "metadata": {}}
    export_head(path, tensors, **told)
    with pytest.raises(ModelUnavailableError, match="SHA-256"):
        GroundingHead(path, sha256="0" * 64)
    path.write_bytes(path.read_bytes().replace(b"mmalign grounding head 1", b"mmalign grounding head 9"))
    with pytest.raises(ModelUnavailableError, match="format"):
        GroundingHead(path)
    with pytest.raises(InputError, match="float16"):
        export_head(path, {"x": np.full((2, 2), 1e6)}, **told)


def test_the_shipped_head_is_for_the_shipped_encoder() -> None:
    encoder = load_encoder("lite")
    head = shipped_head(encoder)
    assert head is not None
    assert head.fits(encoder)
    assert shipped_head(object()) is None
    found = head.ground(encoder, Image.new("RGB", (64, 48), (200, 30, 30)), ["a red wall", "a dog"])
    assert found.heat.shape == (2, 18, 18)
    assert np.isfinite(found.score([Box(0, 0, 64, 48), Box(1, 1, 5, 5)])).all()
    assert all(region.box.clipped(64, 48) == region.box for regions in found.regions() for region in regions)
