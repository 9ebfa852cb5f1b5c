"""What is found of the queries that were really asked, against brute force over what was put in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.collection.collection import Collection
from mmalign.collection.recall import profile_of
from mmalign.collection.sample_queries import synthetic_queries
from mmalign.encoders import EncoderBase
from mmalign.errors import InputError
from mmalign.utils import Float32Array, l2_normalize, with_checksum

DIM, ROWS = 24, 3000


def pictures(count: int, seed: int) -> Float32Array:
    centres = np.random.default_rng(9).normal(size=(30, DIM))
    rng = np.random.default_rng(seed)
    return l2_normalize(centres[rng.integers(0, 30, count)] + 0.5 * rng.normal(size=(count, DIM)))


def anywhere(count: int, seed: int) -> Float32Array:
    return l2_normalize(np.random.default_rng(seed).normal(size=(count, DIM)))


def promise(collection: Collection, **changed: Any) -> None:
    """Write into the manifest of the index in use that something else was measured."""
    path = next((collection.path / "index").glob("*/manifest.json"))
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["checksum"]
    for curve in manifest["contract"]["curves"]:
        curve |= changed.get("curves", {})
    manifest["contract"] |= {name: value for name, value in changed.items() if name != "curves"}
    path.write_text(json.dumps(with_checksum(manifest)), encoding="utf-8")


LEAST = {"efforts": [1], "recall": [0.99], "lower": [0.97]}


def found_of(collection: Collection, rows: NDArray[Any], queries: Float32Array, k: int, **asked: Any) -> float:
    """Mean recall of searches, by names, beside float64 over the rows."""
    truth = np.argsort(-(queries.astype(np.float64) @ rows.astype(np.float64).T), axis=1)[:, :k]
    kept = collection.info()["query_log"]
    # What the test asks for itself is not to be kept.
    collection.log_queries(0)
    results = collection.search(queries, k=k, **asked)
    if kept:
        collection.log_queries(kept["most"])
    shares = [
        len({hit.id for hit in one} & {f"v{i}" for i in true}) / k
        for one, true in zip(results, truth.tolist(), strict=True)
    ]
    return float(np.mean(shares))


@pytest.fixture
def plain(tmp_path: Path) -> Collection:
    collection = Collection.create(tmp_path / "b.mm", encoder=None, dim=DIM)
    collection.add_embeddings([f"v{i}" for i in range(ROWS)], pictures(ROWS, 0))
    collection.build_index("IVF64,Flat", progress=False)
    return collection


def test_nothing_to_say_without_a_sample_or_an_index(plain: Collection, tmp_path: Path) -> None:
    plain.search(pictures(50, 1))
    found = plain.check_live_recall()
    assert (found.checks, found.notes, found.logged, found.seen, found.ok) == ((), (), 0, 0, True)
    other = Collection.create(tmp_path / "c.mm", encoder=None, dim=DIM)
    other.add_embeddings(["a", "b"], pictures(2, 0))
    other.log_queries()
    other.search(pictures(50, 1))
    found = other.check_live_recall()
    assert (found.checks, found.notes, found.logged) == ((), (), 50)
    for wrong in ({"most": 0}, {"seed": -1}, {"most": "x"}):
        with pytest.raises(InputError):
            plain.check_live_recall(**wrong)


def test_an_index_that_keeps_its_promise(plain: Collection) -> None:
    plain.log_queries()
    asked = pictures(300, 2)
    plain.search(asked)
    plain.search(pictures(60, 3), k=50, where="id <> 'v7'", min_recall=0.6)
    found = plain.check_live_recall(seed=1)
    assert found.notes == ()
    assert found.ok
    # Each promise by itself.
    by_promise = {one.min_recall: one for one in found.checks}
    assert set(by_promise) == {0.95, 0.6}
    good = by_promise[0.95]
    assert (good.queries, good.k, by_promise[0.6].queries, by_promise[0.6].k) == (300, 10, 60, 50)
    assert good.lower <= good.recall <= good.upper
    assert good.recall == pytest.approx(found_of(plain, pictures(ROWS, 0), asked, 10), abs=0.005)
    quick = plain.check_live_recall(most=50)
    assert sum(one.queries for one in quick.checks) == 50
    assert (quick.logged, quick.seen, quick.notes) == (360, 360, ())
    json.dumps(quick.to_dict(), allow_nan=False)


def test_an_index_that_claims_too_much_is_noticed_and_built_again(plain: Collection) -> None:
    promise(plain, curves=LEAST)
    opened = Collection.open(plain.path)
    opened.log_queries()
    asked = pictures(300, 2)
    opened.search(asked)
    (bad,) = opened.check_live_recall(most=300).checks
    assert not bad.ok
    assert (bad.effort, bad.min_recall, bad.kind, bad.view) == (1, 0.95, "given", "image")
    assert bad.upper < 0.95
    assert bad.recall == pytest.approx(found_of(opened, pictures(ROWS, 0), asked, 10), abs=0.005)
    # A service looks at few.
    (note,) = opened.check_live_recall(most=50, seed=2).notes
    assert note.about == "recall"
    assert "promised 0.95" in note
    assert note.remedy.startswith("mmalign index --rebuild --collection ")

    manifest = opened.refresh_index(rebuild=True, progress=False)
    measured = profile_of(manifest)
    assert manifest is not None
    assert measured is not None
    assert (manifest.recipe, measured.logged, measured.min_recall) == ("IVF64,Flat", {"given": 300}, 0.95)
    # Three quarters of them measure.
    assert {curve.queries for curve in measured.curves if (curve.kind, curve.share) == ("given", 1.0)} == {225}
    again = opened.check_live_recall()
    assert again.ok
    assert again.notes == ()
    assert found_of(opened, pictures(ROWS, 0), pictures(300, 4), 10) > 0.93


def test_queries_unlike_those_that_it_was_measured_with(plain: Collection) -> None:
    """Measured with pictures, asked with vectors that lie anywhere; as in an index that knows no ranges."""
    promise(plain, ranges={})
    opened = Collection.open(plain.path)
    opened.log_queries()
    asked = anywhere(60, 5)
    opened.search(asked)
    found = opened.check_live_recall()
    (bad,) = found.checks
    assert bad.recall == pytest.approx(found_of(opened, pictures(ROWS, 0), asked, 10), abs=0.005)
    assert not bad.ok
    assert "once 100 such queries are kept (now 60)" in found.notes[0].remedy
    # Too few to measure with.
    assert profile_of(opened.build_index("IVF64,Flat", progress=False)).logged == {}  # type: ignore[union-attr]
    opened.search(anywhere(340, 6))
    measured = profile_of(opened.build_index("IVF64,Flat", progress=False))
    assert measured is not None
    assert measured.logged == {"given": 400}
    assert opened.check_live_recall().ok
    assert found_of(opened, pictures(ROWS, 0), anywhere(300, 7), 10) > 0.93
    # What the caller gives stays.
    given = profile_of(opened.build_index("IVF64,Flat", queries=pictures(200, 8), progress=False))
    assert given is not None
    assert given.logged == {}
    assert {curve.queries for curve in given.curves if (curve.kind, curve.share) == ("given", 1.0)} == {150}


class WordEncoder(EncoderBase):
    """Texts as the sum of fixed vectors of their words, apart from all pictures."""

    name = "word@1"
    dim = DIM
    fingerprint = "f" * 64
    modalities = frozenset({"text", "image"})

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        rows = [sum(np.random.default_rng(list(word.encode())).normal(size=DIM) for word in t.split()) for t in texts]
        return l2_normalize(np.stack(rows) + 2.0)

    def encode_image(self, images: Iterable[Any], *, batch_size: int = 32) -> Float32Array:
        raise NotImplementedError


def test_words_are_measured_under_their_kind(tmp_path: Path) -> None:
    texts = synthetic_queries(500, seed=5)
    collection = Collection.create(tmp_path / "w.mm", encoder=WordEncoder())
    collection.add_embeddings(
        [f"v{i}" for i in range(ROWS)], pictures(ROWS, 0), captions=[texts[i % 400] for i in range(ROWS)]
    )
    collection.log_queries()
    asked = [text for text in synthetic_queries(1200, seed=77) if len(text.split()) >= 8][:150]
    collection.search(asked)
    collection.search(["dog", "red", "snow"] * 10)
    collection.search_captions("a dog in the snow")
    manifest = collection.build_index("IVF64,Flat", progress=False)
    measured = profile_of(manifest)
    assert measured is not None
    assert set(measured.logged) <= {"sentence", "keywords"}
    assert sum(measured.logged.values()) >= 100
    for kind, count in measured.logged.items():
        (curve,) = [one for one in measured.curves if (one.kind, one.share, one.k) == (kind, 1.0, 10)]
        assert curve.queries == count - round(0.25 * count)
    # Of words too few were asked: those that stand for them.
    assert {one.queries for one in measured.curves if (one.kind, one.share) == ("foreign", 1.0)} == {330}
    found = collection.check_live_recall()
    assert found.notes == ()
    counts = {one.kind: one.queries for one in found.checks}
    assert counts["word"] == 30
    assert counts["sentence"] >= 100
    # The doctor's own are fresh ones of all kinds.
    assert len(collection.check_recall(seed=1, progress=False)) == 10

    collection.build_index("IVF16,Flat", view="captions", progress=False)
    views = {one.view: one for one in collection.check_live_recall().checks if one.view != "image"}
    assert [(one.kind, one.queries, one.ok) for one in views.values()] == [("short", 1, True)]
    assert "among the captions" in str(views["captions"])


def test_command_line(plain: Collection) -> None:
    run = CliRunner()
    place = str(plain.path)

    def document(*words: str, code: int = 0) -> Any:
        done = run.invoke(app, [*words, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    def live(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in checks if one["name"].startswith("live recall")]

    assert document("log-queries", place) == {"kept": 0, "seen": 0, "most": 0}
    assert live(document("doctor", place)) == []
    assert document("log-queries", place, "--most", "500") == {"kept": 0, "seen": 0, "most": 500}
    assert document("info", place)["query_log"] == {"kept": 0, "seen": 0, "most": 500}
    opened = Collection.open(plain.path)
    asked = pictures(150, 2)
    opened.search(asked)
    opened.logged_queries()
    (good,) = live(document("doctor", place))
    assert (good["ok"], good["figures"]["queries"], good["remedy"]) == (True, 150, "")

    promise(plain, curves=LEAST)
    (bad,) = live(document("doctor", place, code=1))
    assert (bad["name"], bad["ok"], bad["figures"]["min_recall"]) == ("live recall given", False, 0.95)
    expected = found_of(Collection.open(plain.path), pictures(ROWS, 0), asked, 10)
    assert bad["figures"]["recall"] == pytest.approx(expected, abs=0.005)
    assert bad["figures"]["lower"] < bad["figures"]["recall"] < bad["figures"]["upper"] < 0.95
    assert bad["remedy"] == f"mmalign index --rebuild --collection {place} measures a new index with these queries"

    built = document("index", "--rebuild", "--collection", place)
    assert built["index"] == "IVF64,Flat"
    assert built["recall"]["given"]["lower"] >= 0.95
    assert [one["ok"] for one in live(document("doctor", place))] == [True]
    done = run.invoke(app, ["info", place])
    assert "queries kept, 500 at most" in done.stdout
    done = run.invoke(app, ["log-queries", place, "--off", "--forget"])
    assert "queries deleted" in done.stdout
    assert document("log-queries", place) == {"kept": 0, "seen": 0, "most": 0}
    assert "query log" not in run.invoke(app, ["info", place]).stdout
    assert run.invoke(app, ["log-queries", place, "--off", "--most", "3"]).exit_code != 0
    assert run.invoke(app, ["index", "--rebuild", "--prune", "--collection", place]).exit_code != 0


def test_queries_of_any_length_among_vectors_of_any_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = pictures(ROWS, 0) * rng.uniform(0.5, 3, (ROWS, 1)).astype(np.float32)
    collection = Collection.create(tmp_path / "ip.mm", encoder=None, dim=DIM, metric="ip")
    collection.add_embeddings([f"v{i}" for i in range(ROWS)], rows)
    collection.log_queries()
    asked = pictures(200, 5) * rng.uniform(0.01, 300, (200, 1)).astype(np.float32)
    collection.search(asked)
    collection.build_index("IVF32,Flat", progress=False)
    measured = profile_of(collection.index_manifest)
    assert measured is not None
    assert measured.logged == {"given": 200}
    (check,) = collection.check_live_recall().checks
    assert check.queries == 200
    assert check.ok
    assert check.recall == pytest.approx(found_of(collection, rows, asked, 10), abs=2e-3)
