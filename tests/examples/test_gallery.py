"""The example gallery, read as data: pictures, manifest and attribution agree."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

GALLERY = Path(__file__).resolve().parents[2] / "examples" / "gallery"
LICENCES = {
    "Public domain (Creative Commons Public Domain Dedication)",
    "Public domain",
    "CC0 1.0",
    "CC BY 2.0",
    "CC BY-SA 4.0",
}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    lines = (GALLERY / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_enough_pictures_and_not_too_heavy(rows):
    assert len(rows) >= 140
    assert sum(path.stat().st_size for path in (GALLERY / "images").iterdir()) < 3_000_000


def test_every_row_has_a_picture_that_opens(rows):
    for row in rows:
        with Image.open(GALLERY / row["image"]) as picture:
            picture.load()
            assert max(picture.size) <= (320 if picture.format == "JPEG" else 256), row["image"]
            assert min(picture.size) >= 64, row["image"]


def test_rows_and_files_are_one_to_one(rows):
    named = [row["image"] for row in rows]
    assert sorted(named) == sorted(f"images/{path.name}" for path in (GALLERY / "images").iterdir())
    for name in named:
        assert re.fullmatch(r"images/[a-z]+(-[a-z]+)*\.(png|jpg)", name)


def test_captions_and_tags(rows):
    captions = [caption for row in rows for caption in row["captions"]]
    assert all(1 <= len(row["captions"]) <= 2 for row in rows)
    assert all(caption == caption.strip() and len(caption.split()) >= 2 for caption in captions)
    assert len({caption.lower() for caption in captions}) == len(captions)
    for row in rows:
        assert row["tags"], row["image"]
        assert len(set(row["tags"])) == len(row["tags"]), row["image"]


def test_author_licence_and_source(rows):
    for row in rows:
        assert set(row) == {"image", "captions", "tags", "author", "licence", "source"}
        assert row["author"].strip(), row["image"]
        assert row["source"].strip(), row["image"]
        assert row["licence"] in LICENCES, row["image"]
        assert not row["source"].startswith("OpenMoji") or row["licence"] == "CC BY-SA 4.0", row["image"]


def test_attribution_names_every_file_with_its_author_and_licence(rows):
    lines = (GALLERY / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines()
    table = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert set(table) == {Path(row["image"]).name for row in rows}
    for row in rows:
        line = table[Path(row["image"]).name]
        assert row["author"] in line
        assert line.endswith(f"| {row['licence']} |")
