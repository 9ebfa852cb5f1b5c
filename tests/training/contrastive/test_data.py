"""Reading what is trained on: broken input has a clear outcome, and what is measured on stays out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmalign.errors import InputError, SourceError
from mmalign.training.contrastive.config import DataConfig, parse_config
from mmalign.training.contrastive.data import TrainingData, load_data
from tests.training.toy import make_manifest, settings


def load(manifest: Path, cache: Path, **data: Any) -> TrainingData:
    return load_data(parse_config(settings(manifest, data=data), folder=manifest.parent).data, cache=cache)


def rewrite(manifest: Path, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> None:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(change(number, row)) + "\n" for number, row in enumerate(rows)))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return make_manifest(tmp_path / "d")


def test_broken_pictures_are_skipped_counted_and_named(manifest: Path, tmp_path: Path) -> None:
    folder = manifest.parent
    (folder / "003.png").unlink()
    (folder / "005.png").write_bytes((folder / "005.png").read_bytes()[:200])
    (folder / "007.png").write_text("no picture")
    data = load(manifest, tmp_path / "c")
    assert len(data.train.pictures) == 37
    assert data.counts["train_undecodable_pictures"] == 3
    reasons = {Path(skip.uri).name: skip.reason for skip in data.skips}
    assert reasons["003.png"] == "there is no such file"
    assert "cannot be decoded" in reasons["005.png"]
    assert "not a picture" in reasons["007.png"]
    assert any("003.png: there is no such file" in line for line in data.summary()["skipped"])
    # Captions still belong to their pictures.
    for caption, owner in zip(data.train.captions, data.train.owner, strict=True):
        assert caption in data.train.pictures[owner].captions
    # A picture that has been mended since is used.
    Image.new("RGB", (8, 8)).save(folder / "003.png")
    assert len(load(manifest, tmp_path / "c").train.pictures) == 38


def test_no_usable_picture_is_an_error(manifest: Path, tmp_path: Path) -> None:
    for number in range(40):
        (manifest.parent / f"{number:03}.png").unlink()
    with pytest.raises(
        InputError, match=r"none of the 40 pictures .* data\.train can be decoded; the first: .*000\.png"
    ):
        load(manifest, tmp_path / "c")


def test_blank_captions_are_dropped_and_counted(manifest: Path, tmp_path: Path) -> None:
    blank = {0: ["", "a red thing"], 1: [" . ", "\t"]}
    rewrite(manifest, lambda number, row: {**row, "captions": blank.get(number, row["captions"])})
    data = load(manifest, tmp_path / "c")
    assert data.counts["train_blank_captions"] == 3
    assert data.counts["train_pictures_without_caption"] == 1
    assert data.counts["train_pictures"] == 39
    assert data.train.captions[0] == "a red thing"


def test_one_caption_for_all_is_refused(manifest: Path, tmp_path: Path) -> None:
    rewrite(manifest, lambda _, row: {**row, "captions": ["A picture."]} if row["split"] == "train" else row)
    with pytest.raises(InputError, match=r"all 40 pictures of data\.train have one caption, 'a picture\.'.*tell apart"):
        load(manifest, tmp_path / "c")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{not json", r"manifest\.jsonl:65: not JSON"),
        ('{"captions": ["a"]}', r'manifest\.jsonl:65: expected an object with "image"'),
        ('["a.png"]', r'manifest\.jsonl:65: expected an object with "image"'),
        ('{"image": "a.png", "split": "train", "captions": [3]}', r':65: expected "captions": a list of strings'),
    ],
)
def test_a_line_that_is_no_entry_is_named(manifest: Path, tmp_path: Path, line: str, match: str) -> None:
    with manifest.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(SourceError, match=match):
        load(manifest, tmp_path / "c")


def test_manifests_and_splits_that_do_not_exist(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.jsonl cannot be read"):
        load(tmp_path / "none.jsonl", tmp_path / "c")
    with pytest.raises(
        InputError, match=r"no split 'trian', asked for by data\.train; it has dev \(24\), train \(40\)"
    ):
        load(manifest, tmp_path / "c", train=[{"splits": ["trian"]}])
    with pytest.raises(InputError, match=r"names no manifest; set data\.manifest, or pass --manifest"):
        load_data(DataConfig(), cache=tmp_path / "c")
    with pytest.raises(InputError, match="has a caption under 'labels'"):
        load(manifest, tmp_path / "c", train=[{"splits": ["train"], "field": "labels"}])
    with pytest.raises(SourceError, match=r"no\.txt of data\.texts cannot be read"):
        load(manifest, tmp_path / "c", texts=["no.txt"])
    with pytest.raises(InputError, match=r"24 pictures are to be trained on and measured on, the first is .*040\.png"):
        load(manifest, tmp_path / "c", train=[{"splits": ["train", "dev"]}])


def test_several_parts_repeats_and_other_fields(manifest: Path, tmp_path: Path) -> None:
    other = make_manifest(tmp_path / "e", train=6, dev=2, seed=5)
    box = [0, 0, 1, 1]
    phrases = [{"phrase": "one thing", "box": box}, {"phrase": "one thing", "box": box}, {"phrase": "two", "box": box}]
    rewrite(other, lambda number, row: {**row, "phrases": phrases, "captions": [f"caption {number}"]})
    parts = [
        {"splits": ["train"]},
        {"manifest": str(other), "splits": ["train"], "repeat": 3, "field": "phrases"},
    ]
    data = load(manifest, tmp_path / "c", train=parts)
    assert [len(part) for part in data.train.parts] == [40, 6]
    assert data.train.pictures[40].captions == ("one thing", "two")
    assert data.train.pictures[40].repeat == 3
    assert data.train.owner[-1] == 45


def test_sentences_of_what_is_measured_stay_out(manifest: Path, tmp_path: Path) -> None:
    dev = [json.loads(line) for line in manifest.read_text().splitlines()][-1]["captions"][1]
    turned = " ".join(reversed(dev.split()))
    (tmp_path / "t.txt").write_text(f"{dev.upper()}!\n{turned}\nnothing of the kind\n\nnothing of the kind\n")
    rewrite(manifest, lambda number, row: {**row, "captions": [dev, "unlike"]} if number == 0 else row)
    exact = load(manifest, tmp_path / "c", texts=[str(tmp_path / "t.txt")])
    assert exact.counts["train_equal_sentences"] == exact.counts["text_equal_sentences"] == 1
    assert exact.texts == [turned, "nothing of the kind"]
    assert (exact.counts["text_blank_lines"], exact.counts["text_repeated_lines"]) == (1, 1)
    fuzzy = load(manifest, tmp_path / "c", texts=[str(tmp_path / "t.txt")], fuzzy_twins=0.9)
    assert fuzzy.counts["text_fuzzy_twins"] == 1
    assert fuzzy.texts == ["nothing of the kind"]
    assert exact.digest != fuzzy.digest


def test_pictures_of_what_is_measured_stay_out(shared: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/flickr8k/manifest.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "train"][:12]
    for number, row in enumerate(rows):
        shutil.copy(shared / "data/flickr8k" / row["image"], tmp_path / f"{number}.jpg")
    with Image.open(tmp_path / "9.jpg") as opened:
        twin = opened.convert("RGB").resize((opened.width - 20, opened.height - 10))
    twin.save(tmp_path / "1.jpg", quality=70)
    entries = [
        {"image": f"{n}.jpg", "captions": [row["captions"][0]], "split": "train" if n < 8 else "dev"}
        for n, row in enumerate(rows)
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    data = load(manifest, tmp_path / "c", near_duplicates=0.75)
    assert data.counts["train_near_duplicate_pictures"] == 1
    # The picture is kept in its place, without a caption: it never comes up.
    assert sorted(set(data.train.owner.tolist())) == [0, *range(2, 8)]
