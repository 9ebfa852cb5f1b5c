"""Kill a command at random moments, look at what is left, and let the same command finish.

python -m tests.kills index|caption|purge|all [--times 30] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from mmalign import Collection

VECTORS = 60_500
SECRET = "zebrafinchsecret"
TOO_LATE = "done before it was killed"
Look = Callable[[Path], str]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "mmalign.cli", *map(str, words)]


def finish(words: list[str]) -> float:
    """Run a command to its end; returns the seconds that it took."""
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return time.monotonic() - started


def kill(words: list[str], after: float) -> bool:
    """Kill a command after some seconds; False where it was done before."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def contents(path: Path, *, without: str = "") -> dict[str, dict]:
    """What a collection holds, by id."""
    store = Collection.open(path).snapshot()
    columns = [name for name in store.columns if name != without]
    _, table = store.scan(["id", "uri", "sha256", "captions", *columns])
    _, vectors = store.embeddings()
    return {row["id"]: row | {"embedding": v.tobytes()} for row, v in zip(table.to_pylist(), vectors, strict=True)}


def check_answers(path: Path, ids: set[str]) -> None:
    """Searches see each item that is there, and none else, with the scores that its vector gives."""
    collection = Collection.open(path)
    store = collection.snapshot()
    _, table = store.scan(["id"])
    _, vectors = store.embeddings()
    names = table.column("id").to_pylist()
    assert set(names) == ids
    matrix = vectors.astype(np.float32)
    for query in np.random.default_rng(5).normal(size=(5, collection.dim)).astype(np.float32):
        query /= np.linalg.norm(query)
        scores = matrix @ query
        best = np.sort(scores)[::-1][:10]
        result = collection.search(query, min_recall=1.0)
        np.testing.assert_allclose([hit.score for hit in result], best, atol=2e-3)
        by_name = dict(zip(names, scores.tolist(), strict=True))
        for hit in collection.search(query):
            assert abs(by_name[hit.id] - hit.score) < 2e-3
    collection.check_index()


class Kills:
    """One command, killed again and again.

    Args:
        folder: Where everything is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        shutil.copytree(str(files("mmalign.gallery") / "images"), self.photos)
        for line in (files("mmalign.gallery") / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            sidecar = (self.photos / Path(row["image"]).name).with_suffix(".txt")
            sidecar.write_text("\n".join(row["captions"]) + "\n", encoding="utf-8")
        self.small = folder / "small.mm"
        finish(command("index", self.photos, "--collection", self.small))

    def big(self) -> Path:
        """Half of the pictures and more than 60,000 vectors."""
        path = self.folder / "big.mm"
        shutil.copytree(self.small, path)
        collection = Collection.open(path)
        local = np.random.default_rng(0)
        # In groups, as pictures are: among mere noise most of the time goes into measuring a recall that none reaches.
        centres = local.normal(size=(500, collection.dim))[local.integers(500, size=VECTORS)]
        vectors = centres + 0.6 * local.normal(size=(VECTORS, collection.dim))
        collection.add_embeddings([f"v{number}" for number in range(VECTORS)], vectors.astype(np.float32))
        return path

    def index(self) -> tuple[Path, list[str], Look]:
        """`index` with new pictures and an index of more than 60,000 vectors to build."""
        base = self.big()
        # As if half of the pictures had come since: taken away by their row ids, which nothing remembers.
        store = Collection.open(base)._current().writer()
        row_ids, _ = store.scan(["id"], where="kind = 'image'")
        store.delete(row_ids[::2])
        before = contents(base)
        work = self.folder / "work.mm"
        words = command("index", self.photos, "--collection", work, "--recipe", "ivf-flat")
        shutil.copytree(base, work)
        self.seconds = finish(words)
        reference = contents(work)
        assert len(reference) > len(before) > VECTORS

        def look(path: Path) -> str:
            held = contents(path)
            assert before.items() <= held.items() <= reference.items()
            check_answers(path, set(held))
            finish(words)
            assert contents(path) == reference
            check_answers(path, set(reference))
            manifest = Collection.open(path).index_manifest
            assert manifest is not None
            assert manifest.rows == len(reference)
            return "nothing" if held == before else "all" if held == reference else "a part"

        return base, words, look

    def caption(self) -> tuple[Path, list[str], Look]:
        """`caption --write` of all pictures."""
        work = self.folder / "work.mm"
        words = command("caption", "--write", "--collection", work)
        shutil.copytree(self.small, work)
        self.seconds = finish(words)
        reference = contents(work)
        bare = contents(self.small)

        def look(path: Path) -> str:
            held = contents(path)
            written = 0
            assert held.keys() == reference.keys()
            for name, row in held.items():
                text = row.pop("written_caption", None)
                assert row == {key: value for key, value in bare[name].items() if key != "written_caption"}
                assert text in (None, reference[name]["written_caption"])
                written += text is not None
            check_answers(path, set(held))
            finish(words)
            assert contents(path) == reference
            return "nothing" if not written else "all" if written == len(held) else "a part"

        return self.small, words, look

    def purge(self) -> tuple[Path, list[str], Look]:
        """`remove --purge` of a picture with a caption, in a collection with an index of more than 60,000 vectors."""
        base = self.big()
        # A picture that no other is like, so that nothing else has its vector.
        noise = np.random.default_rng(9).integers(0, 255, (200, 200, 3), np.uint8)
        Image.fromarray(noise).save(self.photos / f"{SECRET}.png")
        (self.photos / f"{SECRET}.txt").write_text(f"the words of {SECRET}\n", encoding="utf-8")
        finish(command("index", self.photos, "--collection", base, "--recipe", "flat"))
        finish(command("search", "x", "--captions", "--collection", base))
        victim = next(name for name, row in contents(base).items() if SECRET in (row["uri"] or ""))
        work = self.folder / "work.mm"
        words = command("remove", victim, "--purge", "--collection", work)
        before = contents(base)
        after = {name: row for name, row in before.items() if name != victim}
        vector = np.frombuffer(before[victim]["embedding"], np.float16)
        needles = {
            "name": SECRET.encode(),
            "id": victim.encode(),
            "vector": vector[4:20].tobytes(),
            "vector in float32": vector[4:20].astype(np.float32).tobytes(),
        }
        shutil.copytree(base, work)
        self.seconds = finish(words)
        self._leaves_no_byte(work, needles)

        def look(path: Path) -> str:
            held = contents(path)
            assert held in (before, after)
            check_answers(path, set(held))
            # Once more; where it is gone already, the words are those of somebody who wants to be sure.
            subprocess.run(words, capture_output=True, check=False)
            assert contents(path) == after
            check_answers(path, set(after))
            self._leaves_no_byte(path, needles)
            return "not removed" if held == before else "removed"

        return base, words, look

    @staticmethod
    def _leaves_no_byte(path: Path, needles: dict[str, bytes]) -> None:
        for file in path.rglob("*"):
            if file.is_file():
                data = file.read_bytes()
                for what, needle in needles.items():
                    assert needle not in data, f"{what} is still in {file}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("what", choices=["index", "caption", "purge", "all"])
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for what in ("index", "caption", "purge") if given.what == "all" else (given.what,):
        local = random.Random(given.seed)
        with tempfile.TemporaryDirectory() as folder:
            kills = Kills(Path(folder))
            base, words, look = getattr(kills, what)()
            work = Path(folder) / "work.mm"
            found: Counter[str] = Counter()
            while sum(found.values()) - found[TOO_LATE] < given.times:
                shutil.rmtree(work)
                shutil.copytree(base, work)
                was_killed = kill(words, local.uniform(0, kills.seconds))
                state = look(work) if was_killed else TOO_LATE
                found[state] += 1
                print(f"{what} {sum(found.values())} for {given.times}: {state}", file=sys.stderr, flush=True)
            told = ", ".join(f"{count} times {state}" for state, count in sorted(found.items()))
            print(f"{what}: {kills.seconds:.1f} s when not killed; found after it was: {told}", flush=True)


if __name__ == "__main__":
    main()
