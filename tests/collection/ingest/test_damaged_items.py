"""Items that are damaged on disk, and made anew from their source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign import Collection, MMAlignError
from mmalign.cli.checks import check_collection
from mmalign.errors import DamagedError
from mmalign.store.checksums import CHECKSUM, EMBEDDING_CHECKSUM
from mmalign.types import AddReport
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for place, color in enumerate(COLORS):
        paint(tmp_path / "photos" / f"{color}.png", color, detail=place)
        (tmp_path / "photos" / f"{color}.txt").write_text(f"something {color}\n", encoding="utf-8")
    return tmp_path / "photos"


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


def index(path: Path, source: Path, encoder: ColorEncoder, **options: Any) -> tuple[Collection, AddReport]:
    made = Collection.open(path, encoder=encoder) if path.exists() else Collection.create(path, encoder=encoder)
    return made, made.add(source, progress=False, **options)


def rows(collection: Collection) -> dict[str, dict[str, Any]]:
    """All that is kept of each item, its embedding too, by its place."""
    store = collection.snapshot()
    row_ids, table = store.scan([name for name in store.dataset.schema.names if name != "embedding"])
    matrix = store.embeddings(row_ids)[1]
    found: dict[str, dict[str, Any]] = {}
    for row, vector in zip(table.to_pylist(), matrix, strict=True):
        assert row["uri"] not in found, "an item is there twice"
        del row[EMBEDDING_CHECKSUM], row[CHECKSUM]
        found[row["uri"]] = row | {"embedding": vector.tolist()}
    return found


def flip(collection: Collection, needle: bytes, bit: int = 0) -> None:
    """Turn over a bit of the one value that is stored as these bytes in the files that are in use."""
    dataset = collection.snapshot().dataset
    names = [Path(file.path).name for one in dataset.get_fragments() for file in one.data_files()]
    files = [Path(dataset.uri) / "data" / name for name in names]
    found = [file for file in files if needle in file.read_bytes()]
    assert len(found) == 1, "the value is not stored as it is, or more than once"
    raw = bytearray(found[0].read_bytes())
    assert raw.count(needle) == 1
    raw[raw.index(needle) + bit // 8] ^= 1 << bit % 8
    found[0].write_bytes(raw)


def needle_of(row: dict[str, Any], what: str) -> bytes:
    value = row[what]
    return np.array(value, np.float16).tobytes() if what == "embedding" else str(value).encode()


def told(report: AddReport) -> str:
    return " | ".join(note.text for note in report.notes)


def is_sound(path: Path) -> bool:
    return all(check.ok for check in check_collection(path, deep=True))


@pytest.mark.parametrize(
    ("what", "bit"), [("embedding", 0), ("embedding", 150), ("sha256", 100), ("uri", 250), ("id", 1), ("id", 18)]
)
def test_a_damaged_item_is_made_anew(
    tmp_path: Path, photos: Path, encoder: ColorEncoder, what: str, bit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mm"
    monkeypatch.setattr("mmalign.collection.collection.load_encoder", lambda spec: encoder)
    collection, _ = index(path, photos, encoder)
    right = rows(collection)
    assert right == rows(index(tmp_path / "fresh.mm", photos, encoder)[0])
    flip(collection, needle_of(right[str(photos / "blue.png")], what), bit)
    with pytest.raises(DamagedError):
        rows(Collection.open(path))
    assert not is_sound(path)
    encoder.encoded = 0
    mended, report = index(path, photos, encoder)
    assert told(report) == "1 damaged item was made anew from the source"
    assert encoder.encoded == 1
    assert rows(mended) == right
    assert rows(Collection.open(path)) == right
    assert is_sound(path)
    assert [Path(hit.uri).name for hit in mended.search("blue", k=1)] == ["blue.png"]
    again = index(path, photos, encoder)[1]
    assert (again.unchanged, again.encoded, again.notes) == (len(COLORS), 0, ())


def test_all_items_are_damaged(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    path = tmp_path / "a.mm"
    collection, _ = index(path, photos, encoder)
    right = rows(collection)
    for place, row in enumerate(right.values()):
        what = ("embedding", "sha256", "id")[place % 3]
        flip(collection, needle_of(row, what), 8 * place % 60 + 1)
    assert len(Collection.open(path).check_items()) == len(COLORS)
    mended, report = index(path, photos, encoder)
    assert told(report) == f"{len(COLORS)} damaged items were made anew from the source"
    assert rows(mended) == right
    assert Collection.open(path).check_items() == []


def test_what_lance_itself_cannot_read(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    """A top bit makes a text none, and no id of that file can be read: all its items are made anew."""
    path = tmp_path / "a.mm"
    collection, _ = index(path, photos, encoder)
    right = rows(collection)
    flip(collection, needle_of(right[str(photos / "blue.png")], "id"), 7)
    with pytest.raises(MMAlignError, match="cannot read"):
        Collection.open(path).search(np.ones(encoder.dim))
    assert not is_sound(path)
    _, report = index(path, photos, encoder)
    assert told(report) == f"{len(COLORS)} damaged items were made anew from the source"
    assert rows(Collection.open(path)) == right
    assert is_sound(path)


def test_damage_of_one_copy_does_not_spread_to_others(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    """Files of the same bytes share an embedding: it is taken from one that is sound, or made anew."""
    path = tmp_path / "a.mm"
    collection, _ = index(path, photos, encoder)
    right = rows(collection)
    flip(collection, needle_of(right[str(photos / "blue.png")], "embedding"), 140)
    (photos / "more.png").write_bytes((photos / "blue.png").read_bytes())
    mended, _ = index(path, photos, encoder)
    found = rows(mended)
    assert found[str(photos / "more.png")]["embedding"] == right[str(photos / "blue.png")]["embedding"]
    del found[str(photos / "more.png")]
    assert found == right
    assert Collection.open(path).check_items() == []


@pytest.mark.parametrize("what", ["sha256", "id"])
def test_values_that_are_lost_are_named(tmp_path: Path, photos: Path, encoder: ColorEncoder, what: str) -> None:
    """Nobody knows which column of a damaged row is right, so that what `update` set is told and not kept."""
    path = tmp_path / "a.mm"
    collection, _ = index(path, photos, encoder)
    right = rows(collection)
    blue, red = right[str(photos / "blue.png")], right[str(photos / "red.png")]
    collection.update([blue["id"], red["id"]], {"stars": 5})
    collection.snapshot().compact(force=True)
    flip(collection, needle_of(blue, what), 17)
    mended, report = index(path, photos, encoder)
    assert "1 damaged item was made anew from the source" in told(report)
    assert f"of item {blue['id']!r} the source does not give what was read of the damaged one: stars=5" in told(report)
    found = rows(mended)
    assert [found[row["uri"]]["stars"] for row in (blue, red)] == [None, 5]
    assert found[blue["uri"]] == blue | {"stars": None}
    assert Collection.open(path).check_items() == []


def test_a_damaged_embedding_loses_no_value(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    path = tmp_path / "a.mm"
    collection, _ = index(path, photos, encoder)
    blue = rows(collection)[str(photos / "blue.png")]
    collection.update([blue["id"]], {"stars": 5, "captions": ["my own"]})
    collection.snapshot().compact(force=True)
    right = rows(collection)
    flip(collection, needle_of(blue, "embedding"), 140)
    mended, report = index(path, photos, encoder)
    assert told(report) == "1 damaged item was made anew from the source"
    assert rows(mended) == right
    assert Collection.open(path).check_items() == []


@pytest.mark.parametrize("what", ["embedding", "sha256", "id"])
def test_damage_of_another_source_is_told_and_left(
    tmp_path: Path, photos: Path, encoder: ColorEncoder, what: str
) -> None:
    path = tmp_path / "a.mm"
    for place, color in enumerate(COLORS):
        paint(tmp_path / "other" / f"{color}.png", color, detail=40 + place)
    index(path, photos, encoder)
    collection, _ = index(path, tmp_path / "other", encoder)
    right = rows(collection)
    flip(collection, needle_of(right[str(tmp_path / "other" / "cyan.png")], what), 9)
    (before,) = Collection.open(path).check_items()
    (photos / "new.png").write_bytes((photos / "blue.png").read_bytes() + b"\0")
    _, report = index(path, photos, encoder)
    assert told(report).startswith("1 item is damaged, and not of this source: ")
    (note,) = report.notes
    assert "index their own source" in note.remedy
    assert (report.added, report.unchanged) == (1, len(COLORS))
    assert Collection.open(path).check_items() == [before]
    mended, report = index(path, tmp_path / "other", encoder)
    assert told(report) == "1 damaged item was made anew from the source"
    found = rows(mended)
    del found[str(photos / "new.png")]
    assert found == right
    assert Collection.open(path).check_items() == []


def test_an_item_whose_file_is_gone_can_be_removed(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    path = tmp_path / "a.mm"
    collection, _ = index(path, photos, encoder)
    right = rows(collection)
    flip(collection, needle_of(right[str(photos / "blue.png")], "id"), 1)
    (photos / "blue.png").unlink()
    _, report = index(path, photos, encoder)
    assert "1 item is damaged, and not of this source" in told(report)
    opened = Collection.open(path)
    (damage,) = opened.snapshot().find_damage()
    assert opened.remove([damage.values["id"]]) == 1
    del right[str(photos / "blue.png")]
    assert rows(Collection.open(path)) == right
    assert Collection.open(path).check_items() == []


def test_any_bit_of_the_data_is_mended_or_refused(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    whole, _ = index(tmp_path / "whole.mm", photos, encoder)
    right, local, outcomes = rows(whole), np.random.default_rng(1), []
    for turn in range(20):
        path = tmp_path / f"{turn}.mm"
        shutil.copytree(whole.path, path)
        (file,) = (path / "items.lance" / "data").iterdir()
        raw = bytearray(file.read_bytes())
        place = int(local.integers(8 * len(raw)))
        raw[place // 8] ^= 1 << place % 8
        file.write_bytes(raw)
        try:
            outcomes.append(told(index(path, photos, encoder)[1]))
        except MMAlignError:
            outcomes.append("refused")
        else:
            assert rows(Collection.open(path)) == right, f"bit {place}"
            assert Collection.open(path).check_items() == []
    assert outcomes.count("1 damaged item was made anew from the source") > 3, outcomes


def test_any_bit_of_the_captions_is_mended(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    """They are all made of what the items hold, so that nothing of them can be lost."""
    whole, _ = index(tmp_path / "whole.mm", photos, encoder)

    def answers(collection: Collection) -> list[tuple[str, str, float]]:
        hits = collection.search_captions("red", k=20)
        return sorted((hit.uri, str(hit.metadata), round(hit.score, 5)) for hit in hits)

    right, local = answers(whole), np.random.default_rng(2)
    assert len(right) == len(COLORS)
    for turn in range(20):
        path = tmp_path / f"{turn}.mm"
        shutil.copytree(whole.path, path)
        (file,) = (path / "views/captions/table.lance/data").iterdir()
        raw = bytearray(file.read_bytes())
        place = int(local.integers(8 * len(raw)))
        raw[place // 8] ^= 1 << place % 8
        file.write_bytes(raw)
        opened = Collection.open(path, encoder=encoder)
        if turn % 4 == 3:
            assert opened.remove([right[0][0]], purge=True) == 1
            assert answers(opened) == right[1:], f"bit {place}"
        else:
            assert answers(opened) == right, f"bit {place}"
        assert opened.check_items() == []


def test_an_item_whose_id_is_damaged_is_not_called_unknown(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> None:
    path = tmp_path / "a.mm"
    collection, _ = index(path, photos, encoder)
    name = rows(collection)[str(photos / "blue.png")]["id"]
    flip(collection, needle_of(rows(collection)[str(photos / "blue.png")], "id"), 1)
    for change in (lambda it: it.update([name], {"rating": 5}), lambda it: it.remove([name])):
        with pytest.raises(DamagedError):
            change(Collection.open(path))
    assert len(Collection.open(path)) == len(COLORS)
