"""What a collection's index promises, end to end, against brute force over what was put in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.cli.checks import check_collection
from mmalign.collection import indexing
from mmalign.collection import recall as promise
from mmalign.collection.collection import Collection
from mmalign.collection.eval_queries import sample_eval_queries
from mmalign.collection.recall import drift_notes, profile_of
from mmalign.collection.sample_queries import synthetic_queries
from mmalign.encoders import EncoderBase
from mmalign.errors import DimensionError, InputError, ModelUnavailableError
from mmalign.index.recall.recall_curves import LEAST_DEPTH, RecallProfile
from mmalign.utils.similarity import Float32Array, l2_normalize

DIM = 24
ROWS = 3000


class WordEncoder(EncoderBase):
    """Texts as the sum of fixed vectors of their words, apart from all pictures."""

    name = "word@1"
    dim = DIM
    fingerprint = "f" * 64
    modalities = frozenset({"text", "image"})

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        self.texts += texts
        rows = [sum(np.random.default_rng(list(word.encode())).normal(size=DIM) for word in t.split()) for t in texts]
        return l2_normalize(np.stack(rows) + 2.0)

    def encode_image(self, images: Iterable[Any], *, batch_size: int = 32) -> Float32Array:
        raise NotImplementedError


def pictures(count: int, seed: int, *, kinds: slice = slice(0, 30)) -> NDArray[np.float32]:
    centres = np.random.default_rng(9).normal(size=(40, DIM))[kinds]
    rng = np.random.default_rng(seed)
    return l2_normalize(centres[rng.integers(0, len(centres), count)] + 0.5 * rng.normal(size=(count, DIM)))


def fill(collection: Collection, vectors: NDArray[np.float32], prefix: str = "v", **metadata: Any) -> None:
    collection.add_embeddings([f"{prefix}{i}" for i in range(len(vectors))], vectors, metadata=metadata or None)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A collection with an encoder, and an index that was measured."""
    collection = Collection.create(tmp_path_factory.mktemp("words") / "a.mm", encoder=WordEncoder())
    fill(collection, pictures(ROWS, 0))
    collection.build_index("IVF64,Flat", progress=False)
    return collection


@pytest.fixture
def plain(tmp_path: Path) -> Collection:
    collection = Collection.create(tmp_path / "b.mm", encoder=None, dim=DIM)
    fill(collection, pictures(ROWS, 0))
    return collection


def contract(collection: Collection) -> RecallProfile:
    found = profile_of(collection.index_manifest)
    assert found is not None
    return found


def brute_recall(collection: Collection, queries: NDArray[np.float32], k: int, effort: int) -> float:
    """Recall of the index itself, by ids, against float64 over the rows of the store."""
    searcher = collection._generation.searcher()
    ids, vectors = searcher.store.embeddings()
    truth = np.argsort(-(queries.astype(np.float64) @ vectors.astype(np.float64).T), axis=1)[:, :k]
    assert searcher.index is not None
    found = searcher.index.search(queries, max(k, LEAST_DEPTH), effort=effort)[1][:, :k]
    return float(np.mean([len(set(a.tolist()) & set(ids[b].tolist())) / k for a, b in zip(found, truth, strict=True)]))


@pytest.mark.parametrize("recipe", ["HNSW16,SQfp16", "IVF64,Flat", "IVF32,PQ12x4,RFlat"])
def test_a_promise_holds_for_queries_of_the_kind(plain: Collection, recipe: str) -> None:
    given = l2_normalize(np.random.default_rng(1).normal(size=(300, DIM)))
    manifest = plain.build_index(recipe, queries=given, progress=False)
    assert manifest is not None
    again = RecallProfile.from_dict(json.loads(json.dumps(dict(manifest.contract))))
    assert again == contract(Collection.open(plain.path))
    assert again.kinds == ("given", "image")
    assert again.min_recall == 0.95
    assert {curve.k for curve in again.curves} == {1, 10, 100}
    fresh = l2_normalize(np.random.default_rng(2).normal(size=(600, DIM)))
    for k in (1, 10, 100):
        for target in (0.7, 0.9, 0.95):
            effort = again.effort_for(target, kinds=("given",), k=k)
            # Two standard errors of the mean of 600.
            assert effort is None or brute_recall(plain, fresh, k, effort) >= target - 0.02


def test_words_are_measured_as_words(words: Collection) -> None:
    measured = contract(words)
    texts = ("foreign", "keywords", "phrase", "rare", "sentence", "short", "word")
    assert measured.kinds == tuple(sorted(("difference", "image", "sum", *texts)))
    fresh = WordEncoder().encode_text([text for text in synthetic_queries(1200, seed=77) if len(text.split()) > 6])
    curve = next(curve for curve in measured.curves if (curve.kind, curve.k) == ("sentence", 10))
    for effort, mean, lower in zip(curve.efforts, curve.recall, curve.lower, strict=True):
        assert lower <= mean
        assert brute_recall(words, fresh, 10, effort) == pytest.approx(mean, abs=0.06)
    text, image = (measured.effort_for(0.95, kinds=(kind,), k=10) for kind in ("sentence", "image"))
    assert text is not None
    assert image is not None
    # Words lie apart from the pictures: the lists nearest to them hold fewer of their neighbours.
    assert text > image


def test_captions_are_asked_where_there_are_enough(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "c.mm", encoder=encoder)
    fill(collection, pictures(600, 0))
    said = [
        {"id": f"v{i}", "captions": [f"item{i} lies on a table in room one", f"item{i} lies on a table in room two"]}
        for i in range(100)
    ]
    collection._generation.writer().patch(said)
    store = collection.snapshot()
    held = sample_eval_queries(store, lambda: encoder, sample=50, progress=False)
    own = sorted({text for text in encoder.texts if re.fullmatch(r"item\d+ lies on a table in room (one|two)", text)})
    # One caption a picture: two of the same one would not be independent.
    assert len(own) == 100
    assert len({text.split()[0] for text in own}) == 100
    sentences = held.asked["sentence"].vectors
    assert held.sample is not None
    assert len(held.sample) == 50
    assert not (held.sample[:, None] == sentences[None]).all(axis=2).any()
    # Captions on both sides, not all among those measured with.
    captions = WordEncoder().encode_text(own)
    assert 2 <= (held.sample[:, None] == captions[None]).all(axis=2).sum() <= 30

    few = WordEncoder()
    collection.update([f"v{i}" for i in range(60)], {"captions": []})
    sample_eval_queries(collection.snapshot(), lambda: few, progress=False)
    assert not [text for text in few.texts if text.startswith("item")]


def test_picture_queries_are_as_far_from_their_row_as_its_neighbour(plain: Collection) -> None:
    asked = sample_eval_queries(plain.snapshot(), None).asked["image"]
    assert asked.own is not None
    rows = l2_normalize(plain.snapshot().embeddings(asked.own)[1].astype(np.float32))
    moved = np.einsum("nd,nd->n", rows, asked.vectors)
    everything = l2_normalize(plain.snapshot().embeddings()[1].astype(np.float32))
    nearest = np.sort(rows @ everything.T, axis=1)[:, -2]
    assert len(set(asked.own.tolist())) == len(asked.own)
    assert np.ptp(moved) < 1e-3
    assert moved.mean() == pytest.approx(np.median(nearest), abs=0.03)


def test_an_encoder_that_is_not_here_leaves_words_out(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "c.mm", encoder=encoder)
    fill(collection, pictures(500, 0))

    def gone() -> WordEncoder:
        raise ModelUnavailableError("no weights here")

    held = sample_eval_queries(collection.snapshot(), gone)
    assert held.asked.keys() == {"image"}
    assert "no weights here" in held.notes[0]
    # By its name it cannot be loaded either: the index is built all the same, and says so.
    opened = Collection.open(collection.path)
    opened.build_index("IVF8,Flat", progress=False)
    assert contract(opened).kinds == ("image",)
    assert any("text queries was not measured" in note for note in opened.notes())


def test_what_cannot_be_kept_is_said(plain: Collection) -> None:
    plain.build_index("PQ4x4", min_recall=0.9, progress=False)
    measured = contract(plain)
    assert measured.min_recall == 0.9
    assert measured.effort_for(0.9, kinds=("image",), k=10) is None
    assert "recall@10 of 0.9 cannot be promised" in measured.notes[0]
    assert measured.notes[0] in plain.notes()
    told = next(note for note in plain.notes() if note == measured.notes[0])
    assert (told.about, told.remedy) == (
        "recall",
        "where that is too slow, choose another recipe: mmalign index SOURCE --recipe NAME",
    )
    assert told.text.endswith("they are answered exactly")
    assert plain.info()["recall"]["image"]["effort"] is None
    plain.build_index("IVF64,Flat", min_recall=0.9, progress=False)
    assert contract(plain).notes == ()
    told = plain.info()["recall"]["image"]
    assert told["lower"] >= 0.9
    assert told["effort"] == contract(plain).effort_for(0.9, kinds=("image",), k=10)


def test_an_index_that_takes_another_ones_place_keeps_the_promise(plain: Collection) -> None:
    plain.build_index("IVF16,Flat", min_recall=0.8, progress=False)
    plain.remove(["v1"], purge=True)
    assert contract(plain).min_recall == 0.8
    fill(plain, pictures(2000, 5), prefix="w")
    plain.refresh_index(progress=False)
    assert contract(plain).min_recall == 0.8


def test_every_way_of_bringing_an_index_up_to_date_keeps_the_promise(plain: Collection) -> None:
    plain.build_index("IVF16,Flat", min_recall=0.8, progress=False)
    # Asked for by another design.
    plain.refresh_index("IVF32,Flat", progress=False)
    assert (plain.index_manifest.recipe, contract(plain).min_recall) == ("IVF32,Flat", 0.8)  # type: ignore[union-attr]
    # Built again, since it was made for less than half of what is there.
    fill(plain, pictures(ROWS + 100, 5), prefix="w")
    plain.refresh_index(progress=False)
    manifest = plain.index_manifest
    assert manifest is not None
    assert (manifest.trained_rows, contract(plain).min_recall) == (2 * ROWS + 100, 0.8)


def test_an_index_that_has_grown_is_measured_again(plain: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    plain.build_index("IVF64,Flat", min_recall=0.9, progress=False)
    before = contract(plain)
    # Updated rows are in the longer index twice, and the earlier place holds nothing that can be found.
    fill(plain, pictures(200, 5))
    fill(plain, pictures(400, 6, kinds=slice(34, 36)), prefix="w")
    assert "unlike" in plain.notes()[0]
    plain.refresh_index(progress=False)
    manifest = plain.index_manifest
    assert manifest is not None
    assert manifest.rows == ROWS + 400
    after = contract(plain)
    assert after != before
    assert (after.min_recall, after.drift["rows"]) == (0.9, ROWS + 400)
    assert plain.notes() == []
    for curve in after.curves:
        assert curve.recall[-1] > 0.97

    # A little more of the same is not measured again.
    monkeypatch.setattr(promise, "_MEASURE_SHARE", 1.0)
    fill(plain, pictures(500, 7), prefix="x")
    plain.refresh_index(progress=False)
    assert plain.index_manifest.rows == ROWS + 900  # type: ignore[union-attr]
    assert contract(plain) == after


def test_exact_indexes_need_no_queries(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "c.mm", encoder=encoder)
    fill(collection, pictures(300, 0))
    collection.build_index("flat", progress=False)
    assert encoder.texts == []
    assert contract(collection).curves == ()
    assert collection.check_recall() == []


def test_queries_to_learn_from_are_not_measured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "c.mm", encoder=encoder)
    fill(collection, pictures(600, 0))
    recipe = tmp_path / "aware.toml"
    recipe.write_text(
        'name = "aware"\nsummary = "x"\nfactory = "PCA12,IVF16,Flat"\nquery_aware = true\n', encoding="utf-8"
    )
    seen: list[Any] = []
    plain_build = indexing.build_index

    def build(*args: Any, queries: Any, **options: Any) -> Any:
        seen.append(queries)
        return plain_build(*args, queries=queries, **options)

    monkeypatch.setattr(indexing, "build_index", build)
    collection.build_index(str(recipe), progress=False)
    assert len(seen[0]) >= 500
    sentences = WordEncoder().encode_text([text for text in encoder.texts if len(text.split()) > 1])
    assert {row.tobytes() for row in seen[0]} <= {row.tobytes() for row in sentences}


@pytest.mark.parametrize("queries", [np.zeros((1, DIM)), np.full((5, DIM), np.nan)])
def test_queries_that_measure_nothing_are_refused(plain: Collection, queries: NDArray[np.float64]) -> None:
    with pytest.raises(InputError):
        plain.build_index("IVF16,Flat", queries=queries)
    with pytest.raises(DimensionError):
        plain.build_index("IVF16,Flat", queries=np.ones((5, DIM + 1)))
    with pytest.raises(InputError, match="min_recall"):
        plain.build_index("IVF16,Flat", min_recall=1.2)
    assert plain.index_manifest is None


def test_drift_is_told_and_more_of_the_same_is_not(plain: Collection) -> None:
    plain.build_index("IVF64,Flat", progress=False)
    query = pictures(1, 3)[0]
    fill(plain, pictures(600, 11), prefix="same")
    assert plain.notes() == []
    assert plain.search(query).notes == ()
    fill(plain, pictures(600, 12, kinds=slice(34, 36)), prefix="other")
    (note,) = plain.notes()
    assert "1,200 of 4,200 items are newer than the measured recall, and unlike the others" in note
    assert plain.search(query).notes == (note,)
    assert Collection.open(plain.path).search(query).notes == (note,)
    plain.build_index("IVF64,Flat", progress=False)
    assert plain.notes() == []


def test_growth_is_told(plain: Collection) -> None:
    plain.build_index("IVF64,Flat", progress=False)
    fill(plain, pictures(ROWS + 500, 11), prefix="same")
    (note,) = plain.notes()
    assert "unlike" not in note
    assert (note.about, note.text) == ("drift", "3,500 of 6,500 items are newer than the measured recall")
    told = [check for check in check_collection(plain.path) if check.name == "drift"]
    assert [(check.ok, check.detail, check.remedy) for check in told] == [(True, note.text, note.remedy)]
    assert "3,500 of 6,500 items are newer" in note


def test_an_index_of_an_earlier_version_promises_nothing(plain: Collection) -> None:
    plain.build_index("IVF64,Flat", progress=False)
    path = next((plain.path / "index").glob("*/manifest.json"))
    manifest = json.loads(path.read_text(encoding="utf-8"))
    # As earlier versions wrote it: it is changed here.
    del manifest["checksum"]
    for damaged in ({}, {"confidence": 7}):
        path.write_text(json.dumps(manifest | {"contract": damaged}), encoding="utf-8")
        opened = Collection.open(plain.path)
        assert profile_of(opened.index_manifest) is None
        assert drift_notes(opened.snapshot(), opened.index_manifest) == []
        assert opened.info()["recall"] == {}
        assert len(opened.search(pictures(1, 3)[0])) == 10
        assert [one.min_recall for one in opened.check_recall(seed=1)] == [None]


def test_doctor_passes_what_is_kept_and_fails_what_is_not(plain: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    # The doctor draws others each time, and with some of them a refuted promise looks like one that may be kept.
    monkeypatch.setattr("mmalign.collection.recheck.secrets.randbits", lambda bits: 3)
    plain.build_index("IVF64,Flat", progress=False)
    # Added items are searched exactly, and removed ones not missed.
    fill(plain, pictures(100, 11), prefix="same")
    plain.remove([f"v{i}" for i in range(50)])
    (good,) = plain.check_recall(seed=3, progress=False)
    assert good.ok
    assert good.lower <= good.recall <= good.upper
    assert good.recall == pytest.approx(contract(plain).curves[1].recall[-1], abs=0.06)
    run = CliRunner()
    done = run.invoke(app, ["doctor", "--collection", str(plain.path), "--json"])
    assert done.exit_code == 0, done.output
    (check,) = [check for check in json.loads(done.stdout) if check["name"] == "recall image"]
    assert check["ok"]
    assert check["figures"]["min_recall"] == 0.95
    assert check["figures"]["recall"] == pytest.approx(good.recall, abs=0.05)

    # A contract that promises at the least effort what only more of it gives.
    path = next((plain.path / "index").glob("*/manifest.json"))
    manifest = json.loads(path.read_text(encoding="utf-8"))
    # As earlier versions wrote it: it is changed here.
    del manifest["checksum"]
    for curve in manifest["contract"]["curves"]:
        curve |= {"efforts": [1], "recall": [0.99], "lower": [0.97]}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    (bad,) = Collection.open(plain.path).check_recall(seed=3, progress=False)
    assert not bad.ok
    assert bad.effort == 1
    assert bad.upper < 0.95
    done = run.invoke(app, ["doctor", "--collection", str(plain.path)])
    assert done.exit_code == 1
    assert "BAD  recall image: recall@10 of" in done.output
    assert "build the index again" in done.output
    with pytest.raises(InputError, match="min_recall"):
        plain.check_recall(min_recall=2)
