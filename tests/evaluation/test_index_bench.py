"""`mmalign bench index`: figures against brute force, what is kept, and what is refused."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.collection.collection import Collection
from mmalign.errors import DimensionError, InputError, RecipeError, SourceError
from mmalign.evaluation import index_bench as benching
from mmalign.evaluation.index_bench import BenchOptions, bench_indexes
from mmalign.evaluation.index_bench_data import open_bench_source
from mmalign.index.exact import ExactIndex
from mmalign.index.planning.estimate import estimate, reached
from mmalign.index.planning.measured import put_measured, read_measured
from mmalign.index.planning.recipe import Recipe, load_recipe
from mmalign.utils.similarity import l2_normalize
from tests.tools.color_encoder import ColorEncoder, paint

ROWS, DIM = 900, 16
QUIET = BenchOptions(k=5, progress=False)


def drawn(rows: int = ROWS, *, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((12, DIM))
    return (centres[rng.integers(0, 12, rows)] + 0.4 * rng.standard_normal((rows, DIM))).astype(np.float32)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "_SINGLES", 20)
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "v.npy", drawn().astype(np.float16))
    return tmp_path / "v.npy"


def rows_of(source: Any) -> tuple[np.ndarray, np.ndarray]:
    ids, vectors = zip(*source.chunks(), strict=True)
    return np.concatenate(ids), np.concatenate(vectors)


def test_recall_is_that_of_brute_force(file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", 7 * drawn(40, seed=2))
    source = open_bench_source(file, queries=tmp_path / "q.npy")
    tables, skipped = bench_indexes(source, ["flat", "IVF30,Flat"], tmp_path / "out", QUIET)
    assert skipped == []
    base, asked = l2_normalize(drawn().astype(np.float16)), l2_normalize(drawn(40, seed=2))
    order = np.argsort(-(asked.astype(np.float64) @ base.astype(np.float64).T), axis=1)[:, :5]
    flat, lists = tables
    assert flat["recall"][0] >= 0.98, "float16 may swap neighbours that are nearly equal"
    index = benching.build_index("IVF30,Flat", source.chunks, rows=ROWS, dim=DIM)[0]
    found = index.search(asked, 5, effort=lists["efforts"][0])[1]
    mean = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found.tolist(), order.tolist(), strict=True)])
    assert lists["recall"][0] == pytest.approx(mean, abs=1e-3)
    assert lists["recall"][0] < 1, "an effort that loses nothing would prove nothing"
    for table in tables:
        assert (table["rows"], table["dim"], table["k"]) == (ROWS, DIM, 5)
        assert all(table[name][0] > 0 for name in ("qps_single", "qps_batch", "p50_ms"))
        assert table["p99_ms"][0] >= table["p50_ms"][0]
    assert flat["bytes_per_vector"] == pytest.approx(2 * DIM + 8, rel=0.1)


def test_queries_taken_out_are_not_found(file: Path) -> None:
    source = open_bench_source(file, count=30)
    ids, vectors = rows_of(source)
    assert (source.rows, len(ids), len(source.queries), source.kind) == (ROWS - 30, ROWS - 30, 30, "held-out vectors")
    assert len(np.unique(ids)) == ROWS - 30
    assert (source.queries @ vectors.T).max() < 0.9999
    both = np.vstack([vectors, source.queries])
    whole = l2_normalize(drawn().astype(np.float16))
    np.testing.assert_allclose(np.sort(both.sum(axis=1)), np.sort(whole.sum(axis=1)), atol=1e-3)
    np.testing.assert_array_equal(open_bench_source(file, count=30).queries, source.queries)


def test_designs_that_learn_from_queries_get_others_than_those_measured_with(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "q.npy", drawn(60, seed=2))
    source = open_bench_source(file, queries=tmp_path / "q.npy", count=40)
    assert source.sample is not None
    both = np.vstack([source.queries, source.sample])
    np.testing.assert_allclose(
        np.sort(both.sum(axis=1)), np.sort(l2_normalize(drawn(60, seed=2)).sum(axis=1)), atol=1e-5
    )
    assert open_bench_source(file, queries=tmp_path / "q.npy").sample is None
    given = {}
    build = benching.build_index

    def watched(recipe: Recipe, *args: Any, **kwargs: Any) -> Any:
        given[recipe.name] = kwargs["queries"]
        return build(recipe, *args, **kwargs)

    monkeypatch.setattr(benching, "build_index", watched)
    tables, skipped = bench_indexes(source, ["lean", "SQ8"], tmp_path / "out", QUIET)
    assert ([table["recipe"] for table in tables], skipped) == (["lean", "SQ8"], [])
    assert given["SQ8"] is None
    np.testing.assert_array_equal(given["lean"], source.sample)


def test_designs_are_chosen_by_what_was_measured(file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", drawn(40, seed=2))
    source = open_bench_source(file, queries=tmp_path / "q.npy")
    out = tmp_path / "out"
    bench_indexes(source, ["IVF30,Flat"], out, BenchOptions(progress=False))
    (path,) = out.glob("*.toml")
    table = tomllib.loads(path.read_text(encoding="utf-8"))["measured"][0]
    recipe = replace(load_recipe("IVF30,Flat"), measured=tuple(read_measured(path)))
    assert reached(recipe) == max(table["recall"])
    enough = next(place for place, recall in enumerate(table["recall"]) if recall >= 0.6)
    found = estimate(recipe, rows=ROWS, dim=DIM, min_recall=0.6)
    assert (found.effort, found.recall) == (table["efforts"][enough], table["recall"][enough])
    assert found.measured == (source.name,)


def test_captions_are_the_queries_of_a_collection(tmp_path: Path) -> None:
    colours = ["red", "green", "blue", "yellow"]
    for name in colours:
        paint(tmp_path / "p" / f"{name}.png", name)
    collection = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    collection.add(tmp_path / "p", progress=False)
    collection.update([hit.id for hit in collection.search("red", k=2)], {"captions": ["red", "green thing"]})
    kept = Collection.open

    def opened(path: Path) -> Collection:
        return kept(path, encoder=ColorEncoder())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collection, "open", opened)
        source = open_bench_source(tmp_path / "c.mm")
    assert (source.kind, source.rows, len(source.queries)) == ("captions", 4, 4)
    expected = l2_normalize(ColorEncoder().encode_text(["green thing", "green thing", "red", "red"]))
    np.testing.assert_allclose(np.sort(source.queries, axis=0), np.sort(expected, axis=0), atol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "npz", "list", "fixed"])
def test_files_of_every_kind_hold_the_same(tmp_path: Path, kind: str) -> None:
    vectors = drawn()
    path = tmp_path / ("v." + (kind if kind.startswith("np") else "parquet"))
    if kind == "npy":
        np.save(path, np.asfortranarray(vectors).astype(">f4"))
    elif kind == "npz":
        np.savez(path, names=np.arange(3), vectors=vectors)
    else:
        flat = pa.array(vectors.ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, DIM) if kind == "fixed" else pa.array(list(vectors))
        parquet.write_table(pa.table({"id": list(range(ROWS)), "vector": column}), path, row_group_size=200)
    np.save(tmp_path / "q.npy", drawn(3, seed=9))
    found = rows_of(open_bench_source(path, queries=tmp_path / "q.npy"))
    np.testing.assert_array_equal(found[0], np.arange(ROWS))
    np.testing.assert_allclose(found[1], l2_normalize(vectors), atol=1e-6)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    def refused(array: np.ndarray, error: type[Exception], words: str, **options: Any) -> None:
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(error, match=words):
            open_bench_source(tmp_path / "bad.npy", **options)

    bad = drawn(20)
    bad[7, 3] = np.nan
    refused(bad, InputError, "1 of 20 rows hold NaN or infinity, the first is row 7")
    bad[7] = 0
    refused(bad, InputError, "1 of 20 rows are all zeros, the first is row 7")
    refused(np.ones((4, 4), np.int64), SourceError, r"expected floats of shape \(n, dim\), got int64")
    refused(np.ones(4, np.float32), SourceError, r"got float32 of shape \(4,\)")
    refused(np.ones((0, 4), np.float32), SourceError, "holds no vectors")
    refused(np.ones((1, 4), np.float32), InputError, "too few to take queries out")
    refused(np.ones((5, 4), np.float32), InputError, "at least 1, got 0", count=0)
    np.save(tmp_path / "q.npy", drawn(3))
    refused(np.ones((5, DIM + 1), np.float32), DimensionError, f"expected dim {DIM + 1}", queries=tmp_path / "q.npy")
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01")
    with pytest.raises(SourceError, match="cannot be read as an array"):
        open_bench_source(tmp_path / "bad.npy")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        open_bench_source(tmp_path / "bad.parquet")
    parquet.write_table(pa.table({"v": [[1.0, 2.0], [3.0], [1.0, 2.0, 3.0]]}), tmp_path / "bad.parquet")
    with pytest.raises(SourceError, match="lists of different lengths"):
        open_bench_source(tmp_path / "bad.parquet")
    with pytest.raises(SourceError, match="neither a collection nor a file of vectors"):
        open_bench_source(tmp_path / "none")


def test_what_was_measured_is_not_measured_again(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = open_bench_source(file, count=20), tmp_path / "out"
    first, _ = bench_indexes(source, ["flat"], out, QUIET)
    built: list[str] = []
    real = benching.build_index
    monkeypatch.setattr(
        benching, "build_index", lambda recipe, *a, **o: (built.append(recipe.name), real(recipe, *a, **o))[1]
    )
    monkeypatch.setattr(benching, "exact_truth", lambda *a, **o: pytest.fail("the truth is kept"))
    second, _ = bench_indexes(source, ["flat", "SQ8"], out, QUIET)
    assert (built, second[0]) == (["SQ8"], first[0])
    assert [path.name for path in out.iterdir() if path.is_dir()] == []
    monkeypatch.undo()
    np.save(file, drawn(seed=5))
    third, _ = bench_indexes(open_bench_source(file, count=20), ["flat"], out, BenchOptions(k=5, progress=False))
    assert third[0]["digest"] != first[0]["digest"]


def test_a_stopped_run_goes_on_where_it_was(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = open_bench_source(file, count=20), tmp_path / "out"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ExactIndex, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            bench_indexes(source, ["flat"], out, QUIET)
    assert list(out.iterdir()) == []
    assert bench_indexes(source, ["flat"], out, BenchOptions(k=5, build_only=True, progress=False)) == ([], [])
    with monkeypatch.context() as patch:
        patch.setattr(benching, "_at_effort", stop)
        with pytest.raises(KeyboardInterrupt):
            bench_indexes(source, ["flat"], out, QUIET)
    monkeypatch.setattr(benching, "build_index", lambda *a, **o: pytest.fail("it is built already"))
    tables, _ = bench_indexes(source, ["flat"], out, QUIET)
    assert tables[0]["recipe"] == "flat"


def test_designs_that_cannot_be_measured_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", drawn(60))
    source = open_bench_source(tmp_path / "v.npy", count=5)
    tables, skipped = bench_indexes(source, ["IVF200,Flat", "flat"], tmp_path / "out", QUIET)
    assert [table["recipe"] for table in tables] == ["flat"]
    assert "needs at least 200 training vectors" in skipped[0].reason
    with pytest.raises(RecipeError, match="unknown index recipe"):
        bench_indexes(source, ["flot"], tmp_path / "out", QUIET)
    with pytest.raises(InputError, match="k must be from 1 to"):
        bench_indexes(source, ["flat"], tmp_path / "out", BenchOptions(k=0))


def test_figures_replace_those_of_the_same_data(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('# why\nname = "r"\n\n[use]\nwhy = "so" # because\n')
    put_measured(path, {"data": "a", "recall": [0.5], "note": 'say "é"\n\\'})
    put_measured(path, {"data": "b", "recall": [0.25, 1.0]})
    put_measured(path, {"data": "a", "recall": [0.75], "rows": 3})
    text = path.read_text()
    assert text.startswith('# why\nname = "r"\n\n[use]\nwhy = "so" # because\n\n[[measured]]\n')
    assert tomllib.loads(text)["measured"] == read_measured(path)
    assert read_measured(path) == [{"data": "b", "recall": [0.25, 1.0]}, {"data": "a", "recall": [0.75], "rows": 3}]
    path.write_text("[[measured]]\ndata = 'a'\n[search]\neffort = 'nprobe'\n")
    with pytest.raises(RecipeError, match="must be the last"):
        put_measured(path, {"data": "a"})
    assert "nprobe" in path.read_text()
    path.write_text("[[")
    with pytest.raises(RecipeError, match="is not TOML"):
        put_measured(path, {"data": "a"})
    with pytest.raises(ValueError, match="JSON compliant"):
        put_measured(tmp_path / "n.toml", {"data": "a", "recall": float("nan")})
    assert read_measured(path) == read_measured(tmp_path / "none.toml") == []


def test_write_changes_the_recipes_of_the_checkout(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "indexes").mkdir()
    (tmp_path / "indexes" / "flat.toml").write_text('name = "flat"\n')
    monkeypatch.setattr(benching, "__file__", str(tmp_path / "mmalign" / "evaluation" / "index_bench.py"))
    options = BenchOptions(k=5, write=True, progress=False)
    with pytest.raises(InputError, match="is for a checkout"):
        bench_indexes(open_bench_source(file), ["flat"], tmp_path / "out", options)
    (tmp_path / "indexes" / "__init__.py").touch()
    tables, _ = bench_indexes(open_bench_source(file), ["flat", "SQ8"], tmp_path / "out", options)
    assert read_measured(tmp_path / "indexes" / "flat.toml") == tables[:1]
    assert sorted(path.name for path in (tmp_path / "indexes").iterdir()) == ["__init__.py", "flat.toml"]


def test_the_command(file: Path, tmp_path: Path) -> None:
    words = ["bench", "index", str(file), "--recipe", "flat", "--k", "3", "--count", "9", "--out", str(tmp_path / "o")]
    told = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    values = json.loads(told.stdout)
    assert values["measured"][0]["queries"] == "9 held-out vectors"
    assert values["plot"] is None or Path(values["plot"]).read_bytes().startswith(b"\x89PNG")
    shown = CliRunner().invoke(app, words, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "recall@3" in shown.stdout


@pytest.mark.parametrize("more", [[], ["--build-only"], ["--json"]])
def test_where_no_design_can_be_built_the_status_says_so(tmp_path: Path, more: list[str]) -> None:
    np.save(tmp_path / "few.npy", drawn(60))
    words = ["bench", "index", str(tmp_path / "few.npy"), "--count", "10", "--out", str(tmp_path / "out"), *more]
    done = CliRunner().invoke(app, [*words, "--recipe", "PQ8", "--recipe", "IVF900,Flat"])
    assert done.exit_code == 1
    assert done.stdout == "" or json.loads(done.stdout)["measured"] == []
    assert "built in" not in done.stderr
    assert CliRunner().invoke(app, [*words, "--recipe", "PQ8", "--recipe", "flat"]).exit_code == 0
