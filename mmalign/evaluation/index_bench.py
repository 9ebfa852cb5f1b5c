"""Measuring index designs on one's own vectors: recall, speed, time to build, and size."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.errors import InputError, MMAlignError, RecipeError
from mmalign.evaluation.index_bench_data import BenchSource
from mmalign.index import (
    Index,
    Recipe,
    Truth,
    build_index,
    exact_truth,
    load_index,
    load_recipe,
    put_measured,
    read_measured,
)
from mmalign.types import Skip
from mmalign.utils import track, write_atomic

_TRUTH = "truth.npz"
_BUILT = "build.json"
# Single queries are asked until there are so many, or so much time has gone by; batches at least so often.
_SINGLES, _SECONDS, _BATCHES = 500, 5.0, 3
# Efforts of a design that names none, as multiples of the usual one.
_TIMES = (0.25, 0.5, 2, 4)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How to measure.

    Attributes:
        k: How many neighbours; recall@k is told.
        build_only: Build what is not built, and time nothing: a machine that is busy spoils no figures then.
        write: Whether to write the figures into the recipes of the checkout too.
        progress: Whether to show progress bars.
    """

    k: int = 10
    build_only: bool = False
    write: bool = False
    progress: bool = True


def bench_indexes(
    source: BenchSource, recipes: Sequence[str], out: Path, options: BenchOptions | None = None
) -> tuple[list[dict[str, Any]], list[Skip]]:
    """Build and measure index designs; a call that was stopped goes on with the design that it was at.

    The true neighbours are computed once and kept in `out`, an index from when it was built to when it was measured,
    and the figures for good: a design is not measured again on the same vectors and queries.

    Args:
        source: Vectors and queries.
        recipes: Names of recipes, paths of recipe files, or FAISS factory strings.
        out: Folder for `truth.npz` and for each design a `.toml` with `[[measured]]` tables; made where there is none.
        options: How to measure.

    Returns:
        The figures, one table a design, and the designs that could not be measured, with the reason. A table holds
        `efforts`, and one value an effort of `recall`, of `qps_single` and `qps_batch` (queries a second, all in one
        batch), `p50_ms` and `p99_ms` (one query at a time); besides `build_seconds`, `bytes_per_vector`, `rows`,
        `dim`, `k`, `recipe`, `factory`, `queries`, `data`, `digest`, `machine`, `threads`, `date` and `version`.

    Raises:
        InputError: `k` is out of range, or `write` outside a checkout.
        RecipeError: A recipe means nothing.
        StorageError: The disk refused.
    """
    options = options or BenchOptions()
    if not 1 <= options.k <= source.rows:
        raise InputError(f"k must be from 1 to the number of vectors, {source.rows:,}, got {options.k}")
    loaded = [load_recipe(name) for name in dict.fromkeys(recipes)]
    home = _recipe_folder() if options.write else None
    out.mkdir(parents=True, exist_ok=True)
    truth: Truth | None = None
    tables: list[dict[str, Any]] = []
    skipped: list[Skip] = []
    for recipe in loaded:
        path = out / f"{_file_name(recipe.name)}.toml"
        table = next((one for one in read_measured(path) if _same(one, source, recipe, options.k)), None)
        if table is None:
            try:
                index, built = _built(source, recipe, out, progress=options.progress)
            except MMAlignError as error:
                skipped.append(Skip(recipe.name, str(error)))
                continue
            if options.build_only:
                continue
            truth = truth or _truth(source, options.k, out, progress=options.progress)
            table = _measure(index, recipe, source, truth, options) | built | _circumstances(source, recipe, options.k)
            put_measured(path, table)
            shutil.rmtree(_index_folder(out, recipe, source), ignore_errors=True)
        if home is not None and (home / f"{recipe.name}.toml").exists():
            put_measured(home / f"{recipe.name}.toml", table)
        tables.append(table)
    return tables, skipped


def _same(table: dict[str, Any], source: BenchSource, recipe: Recipe, k: int) -> bool:
    factory = recipe.resolve(rows=source.rows, dim=source.dim)
    return (table.get("digest"), table.get("k"), table.get("factory")) == (source.digest, k, factory)


def _file_name(recipe: str) -> str:
    # A factory string may hold what a file's name may not.
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in Path(recipe).name)


def _index_folder(out: Path, recipe: Recipe, source: BenchSource) -> Path:
    # A graph that was built with another effort is another index, whatever the recipe is called.
    built_with = "" if recipe.ef_construction is None else f"-ef{recipe.ef_construction}"
    return out / f"{_file_name(recipe.name)}{built_with}-{source.digest}.index"


def _recipe_folder() -> Path:
    folder = Path(__file__).resolve().parents[2] / "indexes"
    if not (folder / "__init__.py").exists():
        raise InputError("--write is for a checkout of mmalign, which has a folder indexes/; leave it out")
    return folder


def _built(source: BenchSource, recipe: Recipe, out: Path, *, progress: bool) -> tuple[Index, dict[str, Any]]:
    """Build an index and save it, or load it where an earlier call has built it."""
    folder = _index_folder(out, recipe, source)
    if not (folder / _BUILT).exists():
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with track(f"Building {recipe.name}", source.rows, enabled=progress) as advance:
                started = time.perf_counter()
                index, _ = build_index(
                    recipe,
                    source.chunks,
                    rows=source.rows,
                    dim=source.dim,
                    queries=source.sample if recipe.query_aware else None,
                    device=recipe.device,
                    advance=advance,
                )
                seconds = time.perf_counter() - started
            if index.factory == "exact" and recipe.factory != "exact":
                raise RecipeError(f"{source.rows:,} vectors are too few to train it; nothing but exact search is left")
            index.save(temporary)
            size = sum(path.stat().st_size for path in temporary.iterdir())
            facts = {"build_seconds": round(seconds, 2), "bytes_per_vector": round(size / source.rows, 1)}
            (temporary / _BUILT).write_text(json.dumps(facts), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    index = load_index(folder)
    if recipe.device == "cuda":
        from mmalign.index import FaissIndex

        if isinstance(index, FaissIndex):
            index.to_device("cuda")
    return index, json.loads((folder / _BUILT).read_text(encoding="utf-8"))


def _truth(source: BenchSource, k: int, out: Path, *, progress: bool) -> Truth:
    """The true neighbours: those that an earlier call found, or from a scan."""
    path = out / _TRUTH
    # Ties reach beyond the k-th place.
    depth = min(source.rows, k + 32)
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["digest"]) == source.digest and kept["ids"].shape == (len(source.queries), depth):
                return Truth(kept["scores"], kept["ids"])
    except (OSError, ValueError, KeyError, EOFError):
        pass
    with track("True neighbours", source.rows, enabled=progress) as advance:
        found = exact_truth(source.queries, source.chunks, depth, advance=advance)
    digest = np.array(source.digest)
    write_atomic(path, lambda temporary: np.savez(temporary, scores=found.scores, ids=found.ids, digest=digest))
    return found


def _measure(index: Index, recipe: Recipe, source: BenchSource, truth: Truth, options: BenchOptions) -> dict[str, Any]:
    """Recall and speed at each effort of a recipe."""
    efforts: Sequence[int | None] = [None]
    usual = index.default_effort
    if usual is not None:
        choices = recipe.effort_choices or [math.ceil(usual * times) for times in _TIMES]
        efforts = sorted({*choices, usual})
    rows: list[dict[str, float]] = []
    with track(f"Measuring {recipe.name}", len(efforts), enabled=options.progress) as advance:
        for effort in efforts:
            rows.append(_at_effort(index, effort, source, truth, options.k))
            advance(1)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {"recipe": recipe.name, "efforts": [effort or 0 for effort in efforts], **columns}


def _at_effort(index: Index, effort: int | None, source: BenchSource, truth: Truth, k: int) -> dict[str, float]:
    queries = source.queries
    # The first search reads what it needs from disk.
    _, found = index.search(queries, k, effort=effort)
    batches: list[float] = []
    while len(batches) < _BATCHES or (sum(batches) < 1.0 and len(batches) < 20):
        batches.append(_seconds(lambda: index.search(queries, k, effort=effort)))
    singles: list[float] = []
    while len(singles) < _SINGLES and sum(singles) < _SECONDS:
        one = queries[len(singles) % len(queries)][None]
        singles.append(_seconds(lambda one=one: index.search(one, k, effort=effort)))  # type: ignore[misc]
    return {
        "recall": round(float(truth.recall(found, k, unit_length=source.unit_length).mean()), 4),
        "qps_single": round(len(singles) / sum(singles), 1),
        "qps_batch": round(len(queries) / statistics.median(batches), 1),
        "p50_ms": round(1e3 * float(np.quantile(singles, 0.5)), 3),
        "p99_ms": round(1e3 * float(np.quantile(singles, 0.99)), 3),
    }


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _circumstances(source: BenchSource, recipe: Recipe, k: int) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "factory": recipe.resolve(rows=source.rows, dim=source.dim),
        **({} if recipe.ef_construction is None else {"ef_construction": recipe.ef_construction}),
        "k": k,
        "rows": source.rows,
        "dim": source.dim,
        "queries": f"{len(source.queries):,} {source.kind}",
        "data": source.name,
        "digest": source.digest,
        "machine": f"{_processor()}, {cores} cores",
        "threads": int(os.environ.get("OMP_NUM_THREADS") or cores),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "version": _version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version() -> str:
    """The installed version, and in a checkout its commit, with a + where files differ from it."""
    root = Path(__file__).resolve().parents[2]
    version = importlib.metadata.version("mmalign")
    if not (root / ".git").exists():
        return version
    command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version} ({done.stdout.strip()})"
