"""A sample of the queries that are asked: what is kept, that it is uniform, and that no search fails over it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmalign.collection import query_log
from mmalign.collection.collection import Collection
from mmalign.errors import InputError
from mmalign.utils import Float32Array, l2_normalize
from tests.tools.color_encoder import ColorEncoder, OtherColorEncoder, paint

DIM = 16
FILE = "queries.log"


def vectors(count: int, seed: int) -> Float32Array:
    return l2_normalize(np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32))


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if "lance" not in str(path))


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    made.add_embeddings([str(i) for i in range(40)], vectors(40, 0), metadata={"n": list(range(40))})
    return made


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance as it is drawn with one seed."""
    seeds = iter(range(1_000_000))
    made = random.Random
    monkeypatch.setattr(query_log.random, "Random", lambda: made(next(seeds)))


def child(path: Path, source: str) -> subprocess.Popen[str]:
    """Another process that has the collection open, and numpy's name."""
    begin = f"import numpy as np\nfrom mmalign import Collection\ncollection = Collection.open({str(path)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", begin + source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_nothing_is_kept_unless_it_is_asked_for(collection: Collection) -> None:
    before = names(collection.path)
    description = (collection.path / "collection.json").read_bytes()
    collection.search(vectors(5, 1))
    collection.search(vectors(1, 2)[0], where="n > 3")
    assert names(collection.path) == before
    assert len(collection.logged_queries()) == 0
    assert collection.info()["query_log"] is None
    assert collection.forget_queries() == 0
    collection.log_queries(0)
    assert names(collection.path) == sorted([*before, ".description.lock"])
    assert (collection.path / "collection.json").read_bytes() == description


def test_what_is_kept_of_a_query(tmp_path: Path) -> None:
    for color in ("red", "blue", "green"):
        paint(tmp_path / "photos" / f"{color}.png", color)
        (tmp_path / "photos" / f"{color}.txt").write_text(f"a {color} wall\n", encoding="utf-8")
    collection = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    collection.add(tmp_path / "photos", progress=False)
    collection.log_queries()
    begun = int(time.time())
    collection.search("crimson", k=2, where="width > 1", min_recall=0.8)
    collection.search(["a red wall", "red + blue"], k=7, offset=3, where=[None, "width > 1"])
    collection.search_captions("a green wall")
    collection.search(collection.encoder.encode_query(["blue"])[0])
    collection.search("red", k=0)
    kept = collection.logged_queries()
    assert (len(kept), kept.seen) == (5, 5)
    found = {
        kinds: (view, k, filtered, None if np.isnan(recall) else recall, exact, effort)
        for kinds, view, k, filtered, recall, exact, effort in zip(
            kept.kinds, kept.views, kept.k, kept.filtered, kept.min_recall, kept.exact, kept.effort, strict=True
        )
        if view == "image"
    }
    assert found == {
        ("word", "rare", "foreign"): ("image", 2, True, 0.8, True, -1),
        ("phrase", "foreign"): ("image", 10, False, None, True, -1),
        ("sum",): ("image", 10, True, None, True, -1),
        ("given",): ("image", 10, False, None, True, -1),
    }
    assert sorted(kept.views) == ["captions", *["image"] * 4]
    assert (kept.times >= begun).all()
    word = kept.kinds.index(("word", "rare", "foreign"))
    np.testing.assert_allclose(kept.vectors[word], collection.encoder.encode_query(["crimson"])[0], atol=1e-3)
    content = (collection.path / FILE).read_bytes()
    for text in (b"crimson", b"wall", b"width"):
        assert text not in content
    assert collection.info()["query_log"] == {"kept": 5, "seen": 5, "most": 2000}
    with pytest.raises(InputError, match="most"):
        collection.log_queries(-1)


def test_the_sample_is_bounded_and_uniform(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, seeded: None
) -> None:
    """Early and late queries, of single searches and of lists, are as likely to be kept, through many writes."""
    monkeypatch.setattr(query_log, "_GATHERED", 60)
    asked, counts, rounds, most = vectors(500, 5), np.zeros(500), 30, 50
    collection.log_queries(most)
    for _ in range(rounds):
        for start in range(0, 500, 100):
            collection.search(asked[start : start + 90], k=1)
            for one in asked[start + 90 : start + 100]:
                collection.search(one, k=1)
        kept = collection.logged_queries()
        assert (len(kept), kept.seen) == (most, 500)
        nearest = np.argmax(kept.vectors @ asked.T, axis=1)
        assert len(set(nearest.tolist())) == most
        counts[nearest] += 1
        assert collection.forget_queries() == most
    expected = rounds * most / 500
    # Chi-squared of 500 cells that are drawn without being put back, and of ten stretches of them.
    spread = ((counts - expected) ** 2).sum() / (expected * (1 - most / 500))
    assert abs(spread - 499) < 4 * np.sqrt(2 * 499)
    stretches = counts.reshape(10, 50).sum(axis=1)
    assert ((stretches - 50 * expected) ** 2 / (50 * expected)).sum() < 27.9
    alone = counts.reshape(5, 100)[:, 90:].sum()
    assert abs(alone - 50 * expected) < 4 * np.sqrt(50 * expected)


def test_another_bound_leaves_the_sample_uniform(collection: Collection, seeded: None) -> None:
    first, second = vectors(1000, 6), vectors(1000, 7)
    collection.log_queries(100)
    collection.search(first, k=1)
    collection.log_queries(1000)
    collection.search(second, k=1)
    kept = collection.logged_queries()
    assert kept.seen == 2000
    # All that drew less than the hundredth of the first thousand: about as many of the second.
    late = int(((kept.vectors @ second.T).max(axis=1) > 0.999).sum())
    assert len(kept) - late == 100
    assert 60 < late < 140
    collection.log_queries(20)
    collection.search(second, k=1)
    collection.logged_queries()
    assert len(collection.logged_queries()) == 20


def test_off_and_forgotten(collection: Collection) -> None:
    collection.log_queries(10)
    collection.search(vectors(30, 1))
    collection.log_queries(0)
    collection.search(vectors(30, 2))
    assert (len(collection.logged_queries()), collection.logged_queries().seen) == (10, 30)
    assert collection.forget_queries() == 10
    assert not (collection.path / FILE).exists()
    assert collection.info()["query_log"] is None
    assert "query_log" not in json.loads((collection.path / "collection.json").read_text(encoding="utf-8"))


def test_two_processes(collection: Collection, tmp_path: Path) -> None:
    collection.log_queries(200)
    search = "\nfor i in range(60):\n    collection.search(asked[50 * i : 50 * i + 50], k=1)\n"
    search += "for one in asked[:20]:\n    collection.search(one, k=1)\n"
    children = []
    for seed in (1, 2):
        np.save(tmp_path / f"{seed}.npy", vectors(3000, seed))
        children.append(child(collection.path, f"asked = np.load({str(tmp_path / f'{seed}.npy')!r})" + search))
    for one in children:
        one.communicate(timeout=120)
        assert one.returncode == 0
    kept = collection.logged_queries()
    assert (len(kept), kept.seen) == (200, 6040)
    of_first = int(((kept.vectors @ vectors(3000, 1).T).max(axis=1) > 0.999).sum())
    # Four standard deviations around the half of them.
    assert 70 < of_first < 130


def test_a_killed_process_costs_its_last_queries(collection: Collection) -> None:
    collection.log_queries(500)
    endless = "asked = np.eye(16, dtype=np.float32)\nfor i in range(10**9):\n    collection.search(asked, k=1)\n"
    seen = 0
    for wait in (0.0, 0.1, 0.2):
        running = child(collection.path, endless + "    print(i, flush=True)\n")
        assert running.stdout is not None
        running.stdout.readline()
        time.sleep(wait)
        running.kill()
        running.communicate()
        kept = collection.logged_queries()
        # The first search of a process is written at once.
        assert kept.seen >= seen + 16
        assert len(kept) == min(kept.seen, 500)
        seen = kept.seen
    # What was half written is deleted, too.
    (collection.path / f".tmp-99999999-ab-{FILE}").write_bytes(b"half")
    collection.forget_queries()
    assert not [name for name in names(collection.path) if name.endswith(FILE)]


def test_what_another_process_has_gathered_is_forgotten_too(collection: Collection) -> None:
    collection.log_queries()
    waiting = (
        "for _ in range(5):\n    collection.search(np.eye(16, dtype=np.float32)[0])\nprint('', flush=True)\ninput()\n"
    )
    running = child(collection.path, waiting)
    assert running.stdout is not None
    running.stdout.readline()
    assert collection.forget_queries() == 1
    running.communicate("\n", timeout=60)
    assert running.returncode == 0
    assert not (collection.path / FILE).exists()
    assert collection.logged_queries().seen == 0


def test_a_search_goes_on_where_nothing_can_be_written(collection: Collection) -> None:
    asked = vectors(1, 3)[0]
    expected = [hit.id for hit in collection.search(asked)]
    collection.log_queries(5)
    (collection.path / ".queries.lock").mkdir()
    # Who reads finds nothing to complain of.
    assert len(collection.logged_queries()) == 0
    first, second = collection.search(asked), collection.search(asked)
    assert [hit.id for hit in first] == [hit.id for hit in second] == expected
    (note,) = first.notes
    assert note.about == "query log"
    assert "not kept" in note
    assert "log-queries --off" in note.remedy
    assert second.notes == ()
    for _ in range(3):
        collection.search(vectors(300, 4), k=1)
    # Of the process alone, and no larger than was asked for.
    assert (len(collection.logged_queries()), collection.logged_queries().seen) == (5, 902)
    (collection.path / ".queries.lock").rmdir()
    assert (len(collection.logged_queries()), (collection.path / FILE).exists()) == (5, True)


def test_a_collection_that_may_only_be_read(read_only: tuple[Path, Callable[[], None]]) -> None:
    folder, close = read_only
    collection = Collection.create(folder / "a.mm", encoder=None, dim=DIM)
    collection.add_embeddings(["a", "b"], vectors(2, 0))
    collection.log_queries()
    close()
    opened = Collection.open(folder / "a.mm")
    found = [opened.search(vectors(1, 1)[0]) for _ in range(3)]
    assert [len(one.hits) for one in found] == [2, 2, 2]
    assert [len(one.notes) for one in found] == [1, 0, 0]


@pytest.mark.parametrize("where", [5, -5])
def test_a_damaged_sample_is_begun_anew(collection: Collection, where: int) -> None:
    collection.log_queries()
    collection.search(vectors(30, 1))
    assert len(collection.logged_queries()) == 30
    content = bytearray((collection.path / FILE).read_bytes())
    content[where] ^= 1
    (collection.path / FILE).write_bytes(content)
    assert len(collection.logged_queries()) == 0
    collection.search(vectors(7, 1))
    assert len(collection.logged_queries()) == 7


def test_vectors_of_another_encoder_are_dropped(tmp_path: Path) -> None:
    for color in ("red", "blue", "green"):
        paint(tmp_path / "photos" / f"{color}.png", color)
    collection = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    collection.add(tmp_path / "photos", progress=False)
    collection.log_queries(20)
    collection.search(["red", "blue"])
    assert len(collection.logged_queries()) == 2
    collection.reencode(OtherColorEncoder(), progress=False)
    assert len(collection.logged_queries()) == 0
    assert not (collection.path / FILE).exists()
    collection.search("green")
    assert collection.info()["query_log"] == {"kept": 1, "seen": 1, "most": 20}
    assert (collection.path / "generation-2" / FILE).exists()
    assert collection.forget_queries() == 1
    assert not (collection.path / "generation-2" / FILE).exists()


def test_a_purge_leaves_them(collection: Collection) -> None:
    collection.log_queries()
    collection.search(vectors(3, 1))
    collection.remove(["1"], purge=True)
    assert len(collection.logged_queries()) == 3
