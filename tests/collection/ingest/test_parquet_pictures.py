"""Pictures that are stored in a Parquet file, through all that is done with a picture."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from mmalign import Collection
from mmalign.cli.checks import check_collection
from mmalign.encoders.pictures import load_rgb
from mmalign.media import thumbnail
from tests.tools.color_encoder import COLORS, ColorEncoder

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["red", "green", "blue", "yellow"]


def picture(*color: int, size: int = 16) -> bytes:
    file = BytesIO()
    Image.new("RGB", (size, size), color).save(file, "PNG")
    return file.getvalue()


def write(path: Path, names: list[str], **columns: Any) -> Path:
    pictures = pa.array([{"bytes": picture(*COLORS[name]), "path": f"{name}.png"} for name in names], HF_IMAGE)
    parquet.write_table(pa.table({"image": pictures, "caption": [f"all {name}" for name in names], **columns}), path)
    return path


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def collection(tmp_path: Path, encoder: ColorEncoder) -> Collection:
    return Collection.create(tmp_path / "c.mm", encoder=encoder)


def test_indexing_searching_and_indexing_again(tmp_path: Path, collection: Collection, encoder: ColorEncoder) -> None:
    file = write(tmp_path / "t.parquet", NAMES)
    report = collection.add(file, progress=False)
    assert (report.added, report.encoded, report.skipped) == (4, 4, ())
    (hit,) = collection.search("blue", k=1)
    assert hit.uri == f"file://{file}#image=2"
    assert hit.metadata["captions"] == ["all blue"]
    # Nothing is read where the file is as it was, and nothing encoded where only its time is another.
    again = collection.add(file, progress=False)
    assert (again.unchanged, again.encoded) == (4, 0)
    os.utime(file, (1, 1))
    touched = collection.add(file, progress=False)
    assert (touched.unchanged, touched.updated, touched.encoded, touched.skipped) == (4, 0, 0, ())
    assert collection.add(file, progress=False).unchanged == 4
    # Other pictures in the same rows are other pictures.
    write(file, ["cyan", "green", "blue", "yellow", "magenta"])
    changed = collection.add(file, progress=False)
    assert (changed.added, changed.updated, changed.encoded) == (1, 1, 2)
    assert collection.search("cyan", k=1)[0].uri == f"file://{file}#image=0"


def test_a_file_that_moved_is_known_again(tmp_path: Path, collection: Collection) -> None:
    collection.add(write(tmp_path / "t.parquet", NAMES), progress=False)
    moved = tmp_path / "train é.parquet"
    (tmp_path / "t.parquet").rename(moved)
    report = collection.add(moved, progress=False)
    assert (report.moved, report.encoded, len(collection)) == (4, 0, 4)
    assert collection.search("red", k=1)[0].uri == f"file://{tmp_path}/train%20%C3%A9.parquet#image=0"


def test_rows_that_are_gone_are_told_and_pruned(tmp_path: Path, collection: Collection) -> None:
    file = write(tmp_path / "t.parquet", NAMES)
    collection.add(file, progress=False)
    write(file, NAMES[:3])
    assert collection.add(file, progress=False).removed == 0
    files = {check.name: check for check in check_collection(collection.path)}["files"]
    assert files.detail == "1 of 4 pictures are gone"
    report = collection.add(file, prune=True, progress=False)
    assert (report.removed, report.encoded, len(collection)) == (1, 0, 3)


def test_rows_that_changed_places_are_not_encoded_again(tmp_path: Path, collection: Collection) -> None:
    file = write(tmp_path / "t.parquet", NAMES)
    collection.add(file, progress=False)
    write(file, NAMES[1:])
    report = collection.add(file, prune=True, progress=False)
    assert (report.encoded, report.skipped, len(collection)) == (0, (), 3)
    for at, name in enumerate(NAMES[1:]):
        assert collection.search(name, k=1)[0].uri == f"file://{file}#image={at}"


def test_encoders_take_the_uri_of_a_stored_picture(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", NAMES)
    assert load_rgb(f"file://{file}#image=3").getpixel((0, 0)) == COLORS["yellow"]


def test_searching_with_a_stored_picture(tmp_path: Path, collection: Collection) -> None:
    file = write(tmp_path / "t.parquet", NAMES)
    collection.add(file, progress=False)
    uri = f"file://{file}#image=1"
    assert collection.search(uri, k=1)[0].uri == uri


def test_contact_sheet_doctor_and_reencoding(tmp_path: Path, collection: Collection) -> None:
    file = write(tmp_path / "t.parquet", NAMES)
    collection.add(file, progress=False)
    small = thumbnail(collection.search("green", k=1)[0].uri, size=8)
    assert small is not None
    assert (np.asarray(small).reshape(-1, 3) == COLORS["green"]).all()
    files = {check.name: check for check in check_collection(collection.path)}["files"]
    assert files.ok
    report = collection.reencode(ColorEncoder(), progress=False)
    assert (report.items, report.dropped) == (4, ())
    assert collection.add(file, progress=False).unchanged == 4
    file.unlink()
    files = {check.name: check for check in check_collection(collection.path)}["files"]
    assert (files.ok, files.detail) == (False, "4 of 4 pictures are gone")


@pytest.mark.parametrize("name", ["coco", "flickr8k", "ucm", "broad", "imagenet_sample"])
def test_our_own_manifests_are_indexed(name: str, shared: Path, tmp_path: Path, collection: Collection) -> None:
    rows = []
    with (shared / "data" / name / "manifest.jsonl").open(encoding="utf-8") as file:
        for line, _ in zip(file, range(12), strict=False):
            row = json.loads(line)
            rows.append(row | {"image": str(shared / "data" / name / row["image"])})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = collection.add(tmp_path / "m.jsonl", progress=False)
    assert (report.added, report.skipped) == (len(rows), ())
