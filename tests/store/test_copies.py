"""Copies among items, against a plain reading of the definition."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mmalign.store.copies import Copies
from mmalign.store.lance_store import Store


def store_of(path: Path, digests: list[str | None]) -> Store:
    store = Store.create(path / "items.lance", dim=4)
    # In two commits, as files come.
    for part in (range(0, len(digests), 2), range(1, len(digests), 2)):
        rows = [{"id": str(i), "uri": f"/{i}", "sha256": digests[i]} for i in part]
        store.upsert(rows, np.ones((len(rows), 4), np.float32))
    return store


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def expected_groups(store: Store) -> list[list[int]]:
    row_ids, table = store.scan(["sha256"])
    groups: dict[str, list[int]] = {}
    for row_id, digest in zip(row_ids.tolist(), table.column("sha256").to_pylist(), strict=True):
        if digest is not None:
            groups.setdefault(digest, []).append(row_id)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def groups_of(copies: Copies) -> list[list[int]]:
    return sorted(copies.row_ids[copies.groups == group].tolist() for group in range(len(copies.first)))


@pytest.mark.parametrize("seed", range(4))
def test_copies_are_found(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    digests = [None if draw == 0 else sha(draw) for draw in rng.integers(0, 60, 90).tolist()]
    store = store_of(tmp_path, digests)
    copies = Copies.read(store)
    wanted = expected_groups(store)
    assert wanted
    assert groups_of(copies) == wanted
    assert copies.extra == sum(map(len, wanted)) - len(wanted)
    assert copies.items == len(store) == 90
    assert sorted(copies.first.tolist()) == sorted(group[0] for group in wanted)
    for group in wanted:
        for member in group:
            assert copies.others(member).tolist() == [other for other in group if other != member]
    allowed = rng.permutation(store.row_ids())[:45]
    among = copies.among(allowed)
    left = [[member for member in group if member in set(allowed.tolist())] for group in wanted]
    assert groups_of(among) == sorted(group for group in left if len(group) > 1)
    assert among.items == 45


def test_digests_of_other_lengths_are_compared_whole(tmp_path: Path) -> None:
    digests = ["a", "a", "ab", sha(1)[:32] + "0" * 32, sha(1)[:32] + "1" * 32, sha(1), sha(1), None, None]
    assert len(groups_of(Copies.read(store_of(tmp_path, digests)))) == 2
    assert not Copies.read(store_of(tmp_path / "b", [sha(1)[:32] + "0" * 32, sha(1)[:32] + "1" * 32]))


@pytest.mark.parametrize("digests", [[], [None, None], [sha(1), sha(2)]])
def test_no_copies(tmp_path: Path, digests: list[str | None]) -> None:
    copies = Copies.read(store_of(tmp_path, digests) if digests else Store.create(tmp_path / "x.lance", dim=4))
    assert not copies
    assert copies.extra == 0
    scores, row_ids = np.ones((1, 2), np.float32), np.array([[1, 0]])
    assert copies.fold(scores, row_ids)[1].tolist() == [[1, 0]]
    assert copies.others(0).tolist() == []


@pytest.mark.parametrize("seed", range(6))
def test_folding_keeps_the_best_place_of_each(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    store = store_of(tmp_path, [sha(draw) for draw in rng.integers(0, 12, 40).tolist()])
    copies = Copies.read(store)
    oldest = {member: group[0] for group in expected_groups(store) for member in group}
    row_ids = np.stack([rng.permutation(store.row_ids())[:20] for _ in range(5)])
    row_ids[rng.random(row_ids.shape) < 0.1] = -1
    row_ids = np.take_along_axis(row_ids, np.argsort(row_ids < 0, axis=1, kind="stable"), axis=1)
    scores = -np.sort(-rng.random(row_ids.shape).astype(np.float32), axis=1)
    folded_scores, folded = copies.fold(scores, row_ids)
    assert folded.shape == row_ids.shape
    for query in range(5):
        seen: dict[int, float] = {}
        for row_id, score in zip(row_ids[query].tolist(), scores[query].tolist(), strict=True):
            if row_id >= 0:
                seen.setdefault(oldest.get(row_id, row_id), score)
        there = folded[query] >= 0
        assert dict(zip(folded[query][there].tolist(), folded_scores[query][there].tolist(), strict=True)) == seen
        assert folded[query][there].tolist() == list(seen)
        assert (np.sort(~there) == ~there).all(), "empty places come last"
