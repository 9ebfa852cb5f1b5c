"""The measurement of searching under load, in short; and that it notices what it is there to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import index_load
from benchmarks.index_load import Journal, check, name, run, vectors
from mmalign.collection.collection import Collection


def test_nothing_is_missed_under_load(tmp_path: Path) -> None:
    seen = run(tmp_path / "work", seconds=5, readers=2, kills=2, base=12_000)
    assert seen["searches"] > 0
    assert seen["through_the_index"] > 0
    assert seen["added"] > 0
    assert seen["removed"] > 0
    assert seen["kills"] == 2


def journal_of(work: Path, *lines: tuple[str, list[int]]) -> Collection:
    work.mkdir()
    collection = Collection.create(work / "load.mm", encoder=None, dim=index_load.DIM)
    numbers = range(600)
    collection.add_embeddings([name(one) for one in numbers], vectors(numbers))
    journal = Journal(work / "journal")
    journal.say("add", numbers)
    journal.say("done")
    for step, which in lines:
        journal.say(step, which)
    return collection


def test_a_missing_item_is_noticed(tmp_path: Path) -> None:
    collection = journal_of(tmp_path / "work")
    collection.remove([name(7)])
    with pytest.raises(SystemExit, match="1 items are missing, 0 should not be there"):
        check(tmp_path / "work")
    # So many that no reader could draw around them.
    collection.remove([name(one) for one in range(500)])
    with pytest.raises(SystemExit, match=r"item \d+ was committed before the search and is missing"):
        index_load.read_items(tmp_path / "work", 0, 20)


def test_a_removed_item_is_noticed(tmp_path: Path) -> None:
    journal_of(tmp_path / "work", ("remove", [7, 8]), ("done", []))
    with pytest.raises(SystemExit, match="0 items are missing, 2 should not be there"):
        check(tmp_path / "work")
    with pytest.raises(SystemExit, match="were removed before the search and were found"):
        index_load.read_items(tmp_path / "work", 0, 5)


def test_a_batch_in_part_is_noticed(tmp_path: Path) -> None:
    journal_of(tmp_path / "work", ("remove", [7, 8])).remove([name(8)])
    with pytest.raises(SystemExit, match="committed in part: 1 of 2"):
        check(tmp_path / "work")


@pytest.mark.parametrize("done", [True, False])
def test_what_was_under_way_is_settled(tmp_path: Path, done: bool) -> None:
    collection = journal_of(tmp_path / "work", ("remove", [7, 8]))
    if done:
        collection.remove([name(7), name(8)])
    assert check(tmp_path / "work") == {"items": 598 if done else 600}
    assert check(tmp_path / "work") == {"items": 598 if done else 600}
