"""Flip one random bit of a collection, ask it all kinds of things, and do it again with another bit.

An answer must be what it was without the damage, or an MMAlignError. Each bit of the files is as likely as any other,
but that half of the flips first choose a file, since small files count as much as large ones.

python -m tests.flips items|index|all [--times N] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmalign import Collection, MMAlignError

DIM, ITEMS = 48, 600
TIMES = {"items": 200, "index": 240}


def make(path: Path, *, with_index: bool) -> None:
    """A collection with values of several kinds, written, changed and taken away in several commits."""
    random_numbers = np.random.default_rng(7)
    collection = Collection.create(path, encoder=None, dim=DIM)
    vectors = random_numbers.normal(size=(ITEMS, DIM)).astype(np.float32)
    names = [f"item-{i:04d}" for i in range(ITEMS)]
    for part in (slice(0, 250), slice(250, 500), slice(500, ITEMS)):
        numbers = range(ITEMS)[part]
        columns: dict[str, list[Any]] = {
            "title": [f"the title of number {i}" for i in numbers],
            "price": [i / 8 for i in numbers],
            "year": [1990 + i % 30 for i in numbers],
            "tags": [[f"tag-{i % 7}", f"tag-{i % 11}"] for i in numbers],
            "sold": [i % 3 == 0 for i in numbers],
        }
        collection.add_embeddings(names[part], vectors[part], metadata=columns, uris=[f"/p/{i}.jpg" for i in numbers])
    collection.update(names[10:40], {"title": "set by hand", "captions": ["a caption", "another one"]})
    collection.remove(names[100:130])
    if with_index:
        assert collection.build_index("hnsw", progress=False) is not None
        collection.remove(names[130:135])


def queries() -> Iterator[tuple[str, Callable[[Collection], Any]]]:
    """What is asked of a collection; an answer is anything that can be compared."""
    asked = np.random.default_rng(11).normal(size=(4, DIM)).astype(np.float32)
    yield "search", lambda it: [hit.to_dict() for result in it.search(asked, k=8) for hit in result]
    yield "exact", lambda it: [hit.to_dict() for hit in it.search(asked[0], k=8, min_recall=1.0)]
    where = "price > 20 AND year BETWEEN 1995 AND 2010 AND NOT sold"
    yield "filter", lambda it: [hit.to_dict() for hit in it.search(asked[1], k=8, where=where)]
    yield "all", lambda it: [hit.to_dict() for hit in it.search(asked[2], k=ITEMS)]
    yield "count", lambda it: (len(it), it.has("item-0003"), it.has("item-0110"))
    yield "deep", lambda it: it.check_items()


def ask(path: Path) -> Iterator[tuple[str, Any]]:
    """Ask all; an answer may be an MMAlignError, and any other exception is one too."""
    for name, query in queries():
        try:
            yield name, query(Collection.open(path))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            yield name, error


def flip(folder: Path, chance: random.Random) -> str:
    """Flip a bit of a file in a folder; returns which."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    chosen = chance.choice(files) if chance.random() < 0.5 else chance.choices(files, sizes)[0]
    content = bytearray(chosen.read_bytes())
    bit = chance.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    chosen.write_bytes(content)
    return f"bit {bit} of {chosen.relative_to(folder)}"


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same; scores of an index and of a comparison with all differ by their rounding."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 1e-6
    return bool(one == other)


def judge(answers: dict[str, Any], right: dict[str, Any]) -> str:
    """What the worst of the answers is."""
    errors = [answer for answer in answers.values() if isinstance(answer, BaseException)]
    if any(not isinstance(error, MMAlignError) for error in errors):
        return "bare exception"
    for name, answer in answers.items():
        # What is asked for with all items read says what is damaged instead of raising.
        if name != "deep" and not isinstance(answer, MMAlignError) and not same(answer, right[name]):
            return "silently wrong"
    if errors:
        return "error"
    return "listed by a deep check" if answers["deep"] else "as without damage"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.flips", description=__doc__)
    parser.add_argument("what", choices=["items", "index", "all"])
    parser.add_argument("--times", type=int)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    bad = 0
    for what in ("items", "index") if given.what == "all" else (given.what,):
        chance = random.Random(given.seed)
        found: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as parent:
            whole = Path(parent) / "whole.mm"
            make(whole, with_index=what == "index")
            right = dict(ask(whole))
            assert not any(isinstance(answer, BaseException) for answer in right.values()), right
            assert right["deep"] == []
            for number in range(given.times or TIMES[what]):
                # A place of its own: what a process has found to be right it does not read again.
                work = Path(parent) / f"{number}.mm"
                shutil.copytree(whole, work)
                which = flip(work / "items.lance" if what == "items" else work, chance)
                answers = dict(ask(work))
                outcome = judge(answers, right)
                found[outcome] += 1
                if outcome in ("bare exception", "silently wrong"):
                    bad += 1
                    wrong = {
                        name: f"{type(answer).__name__}: {answer!s:.200}"
                        for name, answer in answers.items()
                        if not same(answer, right[name])
                    }
                    print(f"{what}: {which}: {outcome}: {wrong}", flush=True)
                shutil.rmtree(work)
        told = ", ".join(f"{count} times {state}" for state, count in sorted(found.items()))
        print(f"{what}: {sum(found.values())} flipped bits, seed {given.seed}: {told}", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
