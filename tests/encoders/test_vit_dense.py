"""Dense features of vision transformers against the papers' formulas, written out in loops over heads and tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.alignment.aligner import Aligner
from mmalign.encoders.base import has_patches
from mmalign.encoders.open_clip import OpenClipEncoder
from mmalign.encoders.vit_dense import dense_features, plan_grid, to_pixels
from mmalign.errors import DecodeError, InputError
from tests.encoders import tiny_models as tiny

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"pool_type": "avg", "final_ln_after_pool": True},
    "no norm before": {"no_ln_pre": True},
    "layer scale": {"ls_init_value": 0.1},
    "fixed positions": {"pos_embed_type": "sin_cos_2d"},
    "custom block": {"block_type": "custom"},
    "custom norms": {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True, "scale_attn": True},
}
METHODS = ["clearclip", "sclip", "naclip"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vit_dense")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> OpenClipEncoder:
    tiny.save_clip(folder, "tiny-dense")
    return OpenClipEncoder("tiny-dense", checkpoint=folder / "tiny-dense.pt", device="cpu")


def transformer(kind: str) -> Any:
    """A small random picture tower of a kind that open_clip builds, with biases that are not 0."""
    import torch
    from open_clip.transformer import VisionTransformer

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(len(kind))
        visual = VisionTransformer(32, 8, 64, 2, 2, 4.0, output_dim=32, **KINDS[kind]).eval()
        for part, parameter in visual.named_parameters():
            if part.endswith(("bias", "gamma")) or "head_scale" in part or "ln_" in part:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return visual.requires_grad_(False)


def norm(layer: Any, row: np.ndarray) -> np.ndarray:
    """A LayerNorm, or nothing, on one row."""
    if not hasattr(layer, "weight"):
        return row
    weight, bias = layer.weight.detach().numpy().astype(float), layer.bias.detach().numpy().astype(float)
    return (row - row.mean()) / np.sqrt(row.var() + layer.eps) * weight + bias


def softmax(row: np.ndarray) -> np.ndarray:
    raised = np.exp(row - row.max())
    return raised / raised.sum()


def naive_last_block(visual: Any, tokens: np.ndarray, method: str, grid: tuple[int, int]) -> np.ndarray:
    """Embeddings of the patch tokens, not of length 1, given what enters the last block: (1 + cells, width)."""
    block = visual.transformer.resblocks[-1]
    attention, heads = block.attn, block.attn.num_heads
    weight, bias = (getattr(attention, f"in_proj_{name}").detach().numpy().astype(float) for name in ("weight", "bias"))
    out_weight = attention.out_proj.weight.detach().numpy().astype(float)
    out_bias = attention.out_proj.bias.detach().numpy().astype(float)
    count, width = tokens.shape
    per_head = width // heads
    rows = [weight @ norm(block.ln_1, token) + bias for token in tokens]
    mixed = np.zeros((count, width))
    for head in range(heads):
        part = slice(head * per_head, (head + 1) * per_head)
        query = [norm(getattr(attention, "ln_q", None), row[:width][part]) for row in rows]
        key = [norm(getattr(attention, "ln_k", None), row[width : 2 * width][part]) for row in rows]
        value = [row[2 * width :][part] for row in rows]
        for i in range(count):
            by_query = np.array([query[i] @ query[j] for j in range(count)]) / np.sqrt(per_head)
            by_key = np.array([key[i] @ key[j] for j in range(count)]) / np.sqrt(per_head)
            if method == "clearclip":
                weights = softmax(by_query)
            elif method == "sclip":
                weights = softmax(by_query) + softmax(by_key)
            else:
                for j in range(1, count):
                    if i > 0:
                        down, right = np.subtract(divmod(i - 1, grid[1]), divmod(j - 1, grid[1]))
                        by_key[j] += np.exp(-(down**2 + right**2) / (2 * 5.0**2))
                weights = softmax(by_key)
            mixed[i, part] = sum(weights[j] * value[j] for j in range(count))
        scale = getattr(attention, "head_scale", None)
        if scale is not None:
            mixed[:, part] *= float(scale[head])
    result = []
    for token, row in zip(tokens, mixed, strict=True):
        attended = norm(
            getattr(block, "ln_attn", None), out_weight @ norm(getattr(attention, "ln_inner", None), row) + out_bias
        )
        attended = attended * gamma(block.ls_1)
        if method == "sclip":
            token = token + attended
            token = token + feed_forward(block, norm(block.ln_2, token)) * gamma(block.ls_2)
        else:
            token = attended
        result.append(norm(visual.ln_post, token) @ visual.proj.detach().numpy().astype(float))
    return np.array(result)[1:]


def gamma(layer: Any) -> Any:
    return layer.gamma.detach().numpy().astype(float) if hasattr(layer, "gamma") else 1.0


def feed_forward(block: Any, row: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return block.mlp(torch.tensor(row, dtype=torch.float32)[None])[0].numpy().astype(float)


def entering_the_last_block(visual: Any, picture: Image.Image) -> np.ndarray:
    """By open_clip's own forward pass: what its last block is given."""
    import torch

    caught: list[torch.Tensor] = []
    handle = visual.transformer.resblocks[-1].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / STD
    visual(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
    handle.remove()
    return caught[0][0].numpy().astype(float)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_formulas_written_out(kind: str) -> None:
    visual = transformer(kind)
    picture = tiny.pictures(1, seed=3)[0].resize((32, 32))
    grid = plan_grid(32, 32, patch=8, side=32, stride=8)
    entering = entering_the_last_block(visual, picture)
    for method in METHODS:
        wanted = naive_last_block(visual, entering, method, grid=(4, 4)).reshape(4, 4, 32)
        assert wanted.std(axis=(0, 1)).min() > 1e-3, "the oracle tells places apart"

        found = dense_features(visual, to_pixels(picture, grid, patch=8, mean=MEAN, std=STD), grid, method=method)

        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=2e-5)


def test_the_methods_differ(encoder: OpenClipEncoder) -> None:
    picture = tiny.pictures(1, seed=3)[0]
    first, second, third = (encoder.encode_patches(picture, method=method) for method in METHODS)
    assert min(abs(first - second).max(), abs(first - third).max(), abs(second - third).max()) > 1e-2


def test_cells_of_a_finer_stride_are_patches_around_their_middle(encoder: OpenClipEncoder) -> None:
    """What goes into the transformer, before positions: each cell's patch cut out of the scaled picture by hand."""
    import torch

    visual = encoder.parts().model.visual
    seen: list[torch.Tensor] = []
    handle = visual.ln_pre.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    picture = tiny.pictures(1, seed=5)[0].resize((64, 32))
    found = encoder.encode_patches(picture, stride=4)
    handle.remove()

    assert found.shape == (8, 16, 32)
    own = visual.positional_embedding.detach()
    assert torch.allclose(seen[0][0, 0], visual.class_embedding + own[0], atol=1e-5), "the class token keeps its place"
    # The rim is 4 pixels, 2 on each side, of the nearest colour.
    looks = visual.preprocess_cfg
    colours = (np.asarray(picture, np.float32) / 255 - looks["mean"]) / looks["std"]
    pixels = np.pad(colours, ((2, 2), (2, 2), (0, 0)), mode="edge")
    kernel = visual.conv1.weight.detach().numpy()
    grid = torch.nn.functional.interpolate(
        own[1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2), size=(8, 16), mode="bicubic", align_corners=False
    )[0]
    for row, column in [(0, 0), (3, 9), (7, 15)]:
        patch = pixels[4 * row : 4 * row + 8, 4 * column : 4 * column + 8].transpose(2, 0, 1)
        wanted = (kernel * patch).sum(axis=(1, 2, 3)) + grid[:, row, column].numpy()
        np.testing.assert_allclose(seen[0][0, 1 + 16 * row + column].numpy(), wanted, rtol=0, atol=1e-4)


def test_a_planted_patch_is_found_where_it_is(encoder: OpenClipEncoder) -> None:
    """Two pictures that differ in one corner have the same cells elsewhere but for what attention carries over."""
    plain = Image.new("RGB", (64, 64), (120, 130, 140))
    marked = plain.copy()
    marked.paste(tiny.pictures(1, seed=9)[0].resize((16, 16)), (48, 0))
    change = np.linalg.norm(
        encoder.encode_patches(plain, stride=8, side=64) - encoder.encode_patches(marked, stride=8, side=64),
        axis=-1,
    )
    assert np.unravel_index(change.argmax(), change.shape) in {(0, 6), (0, 7), (1, 6), (1, 7)}


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((320, 320), (14, 14)),
        ((640, 320), (14, 28)),
        ((320, 480), (21, 14)),
        ((1, 1), (14, 14)),
        ((10_000, 1), (14, 56)),
    ],
)
def test_the_grid_keeps_the_aspect_ratio(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    grid = plan_grid(*size, patch=32, side=224, stride=None)
    assert (grid.rows, grid.columns) == wanted
    assert grid.size == (wanted[1] * 16, wanted[0] * 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be from 1 to 8"),
        ({"stride": 9}, "stride must be from 1 to 8"),
        ({"side": 4}, "side must be at least 8"),
        ({"side": 4096, "stride": 8}, "more than 10,000; take a smaller side"),
        ({"method": "maskclip"}, "clearclip, sclip, naclip, got 'maskclip'"),
    ],
)
def test_what_cannot_be_says_so(encoder: OpenClipEncoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder.encode_patches(Image.new("RGB", (32, 32)), **options)


def test_pictures_of_any_shape_and_mode(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    for picture in (Image.new("L", (1, 1)), Image.new("RGBA", (300, 2)), Image.new("RGB", (3, 500), (9, 200, 4))):
        cells = encoder.encode_patches(picture)
        np.testing.assert_allclose(np.linalg.norm(cells, axis=-1), 1, atol=1e-5)
    with pytest.raises(DecodeError, match="no such file"):
        encoder.encode_patches(tmp_path / "none.png")


def test_models_without_patches_of_their_own_say_why(folder: Path) -> None:
    coca = tiny.save_clip(folder, "tiny-dense-coca", tiny.COCA)
    assert coca.visual.attn_pool is not None
    pooled = OpenClipEncoder("tiny-dense-coca", checkpoint=folder / "tiny-dense-coca.pt", device="cpu")
    mobile = tiny.save_local_dir(
        folder / "mobile", tiny.MOBILECLIP, {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}
    )
    timm = OpenClipEncoder(f"local-dir:{mobile}", device="cpu")
    for model, reason in ((pooled, "pools with attention"), (timm, "TimmModel")):
        assert not has_patches(model)
        with pytest.raises(InputError, match=f"{reason}.*as crops"):
            model.encode_patches(Image.new("RGB", (32, 32)))


def test_models_with_patches_say_so(encoder: OpenClipEncoder) -> None:
    assert has_patches(encoder)


def test_sentences_are_aligned_through_it(encoder: OpenClipEncoder) -> None:
    """The map of a phrase is the cosine of its embedding with each cell's, in standard deviations."""
    picture = tiny.pictures(1, seed=7)[0]
    aligner = Aligner(encoder, parser="rules")
    heat = aligner.heat(picture, ["a dog", "snow"])
    cosines = encoder.encode_patches(picture) @ encoder.encode_text(["a dog", "snow"]).T
    wanted = (cosines - cosines.mean(axis=(0, 1))) / cosines.std(axis=(0, 1))
    np.testing.assert_allclose(heat, wanted.transpose(2, 0, 1), atol=1e-3)
    found = aligner.align(picture, "a dog in the snow", regions=[[0, 0, 9, 9], [5, 5, 12, 12]])
    assert found.matrix.shape == (2, 2)
    assert len(found.links) == 2
