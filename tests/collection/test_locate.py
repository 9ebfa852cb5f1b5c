from __future__ import annotations

from pathlib import Path

import pytest

from mmalign.collection.locate import locate_collection
from mmalign.errors import CollectionNotFoundError


def make(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "collection.json").write_text("{}", encoding="utf-8")
    return path


def test_the_order_of_the_rule(tmp_path: Path) -> None:
    near = make(tmp_path / "near.mm")
    assert locate_collection("x.mm", environ={"MMALIGN_COLLECTION": "y.mm"}, folder=tmp_path) == Path("x.mm")
    assert locate_collection(environ={"MMALIGN_COLLECTION": "y.mm"}, folder=tmp_path) == Path("y.mm")
    assert locate_collection(environ={}, folder=tmp_path) == near


def test_what_is_named_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate_collection(Path("~/x.mm")) == tmp_path / "x.mm"
    assert locate_collection(environ={"MMALIGN_COLLECTION": "~/y.mm"}) == tmp_path / "y.mm"


def test_nearest_of_the_parents(tmp_path: Path) -> None:
    make(tmp_path / "far.mm")
    (tmp_path / "a" / "b").mkdir(parents=True)
    near = make(tmp_path / "a" / "near.mm")
    assert locate_collection(environ={}, folder=tmp_path / "a" / "b") == near


def test_the_folder_s_own_goes_first(tmp_path: Path) -> None:
    own = make(tmp_path / "photos.mm")
    make(tmp_path / "other.mm")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    assert locate_collection(environ={}, folder=tmp_path / "photos" / "deep") == own


def test_several_are_listed(tmp_path: Path) -> None:
    make(tmp_path / "a.mm")
    make(tmp_path / "b.mm")
    (tmp_path / "empty.mm").mkdir()
    with pytest.raises(CollectionNotFoundError, match=r"(?s)a\.mm.*b\.mm.*--collection"):
        locate_collection(environ={}, folder=tmp_path)


def test_none_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What lies in the folders above the test's own is not the test's business.
    monkeypatch.setattr("mmalign.collection.locate._collections", lambda folder: [])
    with pytest.raises(CollectionNotFoundError, match="mmalign index FOLDER"):
        locate_collection(environ={}, folder=tmp_path)
