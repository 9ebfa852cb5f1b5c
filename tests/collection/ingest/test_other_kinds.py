"""Kinds and sizes come from the loader: a kind of one's own is indexed, found, filtered and encoded anew like pictures.

The kind is made up here: a `.reel` file says in JSON of what colour it is, how long it lasts and of how many frames.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mmalign import Collection
from mmalign.errors import InputError
from mmalign.media import Loaded, MediaPolicy, read_media, register_loader, sha256_hex, unregister_loader
from mmalign.types import Skip
from tests.tools.color_encoder import COLORS, ColorEncoder, OtherColorEncoder, paint

OLD = Path(__file__).parents[2] / "data"


@dataclass(frozen=True, slots=True)
class Reel(Loaded):
    kind: ClassVar[str] = "reel"
    duration: float = 0.0
    frames: int = 0

    @property
    def sizes(self) -> dict[str, float]:
        return {"duration": self.duration, "frames": self.frames}


class ReelLoader:
    kind = "reel"
    suffixes = frozenset({".reel"})
    sizes = {"duration": "float64", "frames": "int64"}  # noqa: RUF012 - as a user writes it

    def load(
        self, uris: Iterable[str], *, wanted: Callable[[str], bool] | None = None, policy: MediaPolicy | None = None
    ) -> Generator[Loaded | Skip, None, None]:
        for uri in uris:
            media = read_media(uri, policy=policy)
            digest = sha256_hex(media.data)
            if wanted is not None and not wanted(digest):
                yield Reel(uri, digest, len(media.data), media.mtime_ns)
                continue
            told = json.loads(media.data)
            if told["color"] not in COLORS:
                yield Skip(uri, "a reel of no known colour")
                continue
            frame = Image.new("RGB", (40, 30), COLORS[told["color"]])
            yield Reel(uri, digest, len(media.data), media.mtime_ns, frame, told["duration"], told["frames"])


@pytest.fixture(autouse=True)
def reels() -> Iterator[None]:
    register_loader(ReelLoader())
    yield
    unregister_loader("reel")


def write(path: Path, color: str, duration: float, frames: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"color": color, "duration": duration, "frames": frames}))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    paint(folder / "a.png", "red")
    write(folder / "b.reel", "red", 2.5, 60)
    write(folder / "c.reel", "blue", 12.0, 288)
    paint(folder / "d.png", "blue", detail=3, size=(50, 20))
    write(folder / "e.reel", "purple-ish", 1.0, 1)
    return folder


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "media.mm", encoder=ColorEncoder())


def told(collection: Collection) -> dict[str, tuple[str | None, dict[str, float]]]:
    """By file name: kind and sizes."""
    return {Path(item.uri).name: (item.kind, dict(item.sizes)) for item in collection}


EXPECTED = {
    "a.png": ("image", {"width": 40, "height": 30}),
    "b.reel": ("reel", {"duration": 2.5, "frames": 60}),
    "c.reel": ("reel", {"duration": 12.0, "frames": 288}),
    "d.png": ("image", {"width": 50, "height": 20}),
}


def test_a_kind_of_ones_own_is_indexed_and_read_back(collection: Collection, folder: Path) -> None:
    report = collection.add(folder, progress=False)
    assert (report.added, report.encoded) == (4, 4)
    assert [(Path(skip.uri).name, skip.reason) for skip in report.skipped] == [("e.reel", "a reel of no known colour")]
    assert told(collection) == EXPECTED
    assert collection.columns == {}, "sizes are no metadata"
    (reel,) = [item for item in collection if item.uri.endswith("b.reel")]
    assert (reel.width, reel.height) == (None, None)
    written = reel.to_dict()
    assert (written["kind"], written["duration"], written["frames"], written["width"]) == ("reel", 2.5, 60, None)
    table = collection.to_arrow(columns=["uri", "width", "duration", "frames"])
    assert [table.schema.field(name).type for name in ("width", "duration", "frames")] == [
        pa.int32(),
        pa.float64(),
        pa.int64(),
    ]
    assert sorted(table.column("frames").to_pylist(), key=str) == [288, 60, None, None]
    assert told(Collection.open(collection.path, encoder=ColorEncoder())) == EXPECTED
    assert collection.add(folder, progress=False).unchanged == 4


def test_it_is_found_and_filtered_by_its_sizes(collection: Collection, folder: Path) -> None:
    collection.add(folder, progress=False)
    hits = {Path(hit.uri).name: hit.metadata for hit in collection.search("red", k=2)}
    assert hits == {
        "a.png": {"kind": "image", "width": 40, "height": 30},
        "b.reel": {"kind": "reel", "duration": 2.5, "frames": 60},
    }
    for where, names in {
        "duration > 3": ["c.reel"],
        "frames < 100 OR width > 45": ["b.reel", "d.png"],
        "kind = 'reel'": ["b.reel", "c.reel"],
        "width IS NULL": ["b.reel", "c.reel"],
        "width > 45": ["d.png"],
    }.items():
        assert sorted(Path(hit.uri).name for hit in collection.search("blue", where=where)) == names, where


def test_copies_moves_and_edits_keep_their_own_sizes(collection: Collection, folder: Path) -> None:
    collection.add(folder, progress=False)
    shutil.copy(folder / "b.reel", folder / "f.reel")
    (folder / "c.reel").rename(folder / "g.reel")
    write(folder / "b.reel", "green", 7.0, 168)
    os.utime(folder / "b.reel", ns=(1, 1))
    report = collection.add(folder, progress=False)
    assert (report.added, report.moved, report.updated, report.encoded) == (1, 1, 1, 1)
    rest = {name: EXPECTED[name] for name in ("a.png", "d.png")}
    assert told(collection) == rest | {
        "b.reel": ("reel", {"duration": 7.0, "frames": 168}),
        "f.reel": EXPECTED["b.reel"],
        "g.reel": EXPECTED["c.reel"],
    }


def test_metadata_of_the_same_name_stays_metadata(collection: Collection, folder: Path) -> None:
    early, late = folder / "early.reel", folder / "late.reel"
    write(early, "green", 3.0, 72)
    paint(folder / "z.png", "green", detail=5)
    rows = [{"image": str(folder / "z.png"), "duration": "long"}]
    collection.add(rows, progress=False)
    assert collection.columns == {"duration": "string"}
    write(late, "white", 4.0, 96)
    collection.add([early, late], progress=False, metadata={"duration": "short", "frames": "few"})
    assert collection.columns == {"duration": "string", "frames": "string"}
    (found,) = collection.search("green", where="duration = 'short'", k=1)
    assert (found.metadata["duration"], found.metadata["duration_2"]) == ("short", 3.0)
    item = collection.get(found.id)
    assert item.sizes == {"duration": 3.0, "frames": 72}
    assert item.metadata == {"duration": "short", "frames": "few"}
    assert [hit.id for hit in collection.search("white", where="duration_2 > 3.5")] != []


@pytest.mark.parametrize("name", ["format-1", "format-2"])
def test_collections_of_earlier_formats_take_them(name: str, folder: Path) -> None:
    with zipfile.ZipFile(OLD / f"{name}.mm.zip") as archive:
        archive.extractall(folder)
    encoder = ColorEncoder() if name == "format-1" else OtherColorEncoder()
    opened = Collection.open(folder / "old.mm", encoder=encoder)
    before = told(opened)
    assert len(before) == 11
    assert {kind for kind, _ in before.values()} == {"image"}
    assert all(list(sizes) == ["width", "height"] for _, sizes in before.values())
    picture = paint(folder / "new.png", "red", detail=7, size=(31, 17))
    assert opened.add([picture, folder / "b.reel"], progress=False).added == 2
    after = told(opened)
    assert after == before | {"new.png": ("image", {"width": 31, "height": 17}), "b.reel": EXPECTED["b.reel"]}
    assert len(opened.search("red", k=50, where="width > 0")) == 12


def test_it_is_encoded_anew_with_the_rest(collection: Collection, folder: Path) -> None:
    collection.add([folder / "a.png", folder / "b.reel"], progress=False)
    # Vectors with a file get its kind and its sizes, also where no item of that kind was there.
    vectors = Collection.create(folder.parent / "vectors.mm", encoder=None, dim=4)
    vectors.add_embeddings(["c"], np.eye(1, 4), uris=[str(folder / "c.reel")])
    assert vectors.reencode(ColorEncoder(), progress=False).items == 1
    assert told(vectors) == {"c.reel": EXPECTED["c.reel"]}

    class Other(ColorEncoder):
        name = "color@3"
        fingerprint = "3" * 64

    write(folder / "b.reel", "green", 9.0, 216)
    assert collection.reencode(Other(), progress=False).updated == 1
    assert told(collection) == {
        "a.png": EXPECTED["a.png"],
        "b.reel": ("reel", {"duration": 9.0, "frames": 216}),
    }


def test_what_cannot_be_a_loader_is_refused(folder: Path, collection: Collection) -> None:
    for kind, suffixes, match in (
        ("image", {".film"}, "mmalign's own"),
        ("vector", {".film"}, "mmalign's own"),
        ("film", set(), "names no endings"),
        ("film", {".png"}, "read as image"),
        ("film", {".film", ".reel"}, "read as reel"),
    ):
        loader = ReelLoader()
        loader.kind, loader.suffixes = kind, frozenset(suffixes)
        with pytest.raises(InputError, match=match):
            register_loader(loader)
    unregister_loader("reel")
    assert collection.add(folder, progress=False).added == 2, "without its loader it is a file like any other"
