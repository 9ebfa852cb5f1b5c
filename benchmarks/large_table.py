"""A large collection: what an `index` of an unchanged table, and single operations, take in time and memory.

python -m benchmarks.large_table [ROWS]

The rows are made up: 5,000,000 of them where no number is given, vectors of 64 dimensions, a title and a year. That
takes some 3 GB in the folder for temporary files. Each measurement is a process of its own, whose peak memory it is.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.results import write
from mmalign import Collection
from mmalign.store import CellNotes, Claim, Columns, Store, fit_items, merge_claims, table_key
from mmalign.store.checksums import with_checksums
from mmalign.types import Item

DIM = 64
BLOCK = 250_000
REPEATS = 30


def name_of(number: int) -> str:
    return f"item-{number:08d}"


def place_of(number: int) -> str:
    return f"https://example.org/{number % 997:03d}/{number:08d}.jpg"


def rows_of(start: int, stop: int) -> dict[str, list[Any]]:
    numbers = range(start, stop)
    return {
        "id": [name_of(number) for number in numbers],
        "url": [place_of(number) for number in numbers],
        "title": [f"the title of item {number}" for number in numbers],
        "year": [1900 + number % 120 for number in numbers],
    }


def fill(collection: Path, table: Path, rows: int) -> None:
    """Make the table, and the collection as it is once the table was indexed and its vectors were added.

    The rows go past `add_embeddings` and `index`, which would take ten times as long to come to the same.
    """
    Collection.create(collection, encoder=None, dim=DIM)
    store = Store.open(collection / "items.lance")
    columns = store.settle_columns(["title", "year"], [{"title": "x", "year": 1}])
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, BLOCK):
        given = rows_of(start, min(rows, start + BLOCK))
        block = pa.table(given)
        writer = writer or parquet.ParquetWriter(table, block.schema)
        writer.write_table(block)
        said = said_of(columns, table, given)
        lance.write_dataset(whole(store, given, said, rng), str(collection / "items.lance"), mode="append")
    assert writer is not None
    writer.close()
    Store.open(collection / "items.lance").keep_indexes()


def said_of(columns: Columns, table: Path, given: dict[str, list[Any]]) -> list[str]:
    """What the table has said of each of its rows, once it was indexed."""
    items = [
        Item(url, name, metadata={"title": title, "year": year})
        for name, url, title, year in zip(*given.values(), strict=True)
    ]
    key = table_key(str(table))
    said = []
    for one in fit_items(columns, items, cell_notes=CellNotes()):
        merged = merge_claims(
            None, [Claim(key, {"captions": None, **one.item.metadata}, digest=one.own_digest, earlier=one.digest)]
        )
        assert merged is not None
        said.append(str(merged.claims_json))
    return said


def whole(store: Store, given: dict[str, list[Any]], said: list[str], rng: np.random.Generator) -> pa.Table:
    count = len(said)
    vectors = rng.standard_normal((count, DIM), np.float32)
    matrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    schema = store.dataset.schema
    values = {
        "id": given["id"],
        "uri": given["url"],
        "kind": ["vector"] * count,
        "said": said,
        "title": given["title"],
        "year": given["year"],
    }
    fields = [field for field in schema if field.name not in ("embedding", "_embedding_checksum", "_checksum")]
    table = pa.table([pa.array(values.get(one.name, [None] * count), one.type) for one in fields], pa.schema(fields))
    table = with_checksums(table, matrix)
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), DIM)
    return table.append_column(schema.field("embedding"), embeddings).select(schema.names)


def peak() -> int:
    """Most memory that this process has had, in MB."""
    # What `getrusage` says begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def measure_index(collection: Path, table: Path, rows: int) -> dict[str, float]:
    before = time.process_time()
    report = Collection.open(collection).add(table, progress=False)
    assert (report.unchanged, report.updated, report.added, report.skipped) == (rows, 0, 0, ()), report
    spent = time.process_time() - before
    return {"seconds": round(report.seconds, 1), "cpu_seconds": round(spent, 1), "peak_mb": peak()}


def measure_operations(collection: Path, _: Path, rows: int) -> dict[str, float]:
    opened = Collection.open(collection)
    draws = np.random.default_rng(1)

    def names(count: int) -> list[str]:
        return [name_of(number) for number in draws.choice(rows, count, replace=False).tolist()]

    def read() -> None:
        _, table = opened.snapshot().lookup("id", wanted := names(10), ["id", "uri", "title"])
        assert table.num_rows == len(wanted)

    def remove() -> None:
        wanted = gone.pop()
        assert opened.remove(wanted) == len(wanted)

    doomed = names(10 * REPEATS)
    gone = [doomed[start : start + 10] for start in range(0, len(doomed), 10)]
    operations: dict[str, Callable[[], object]] = {
        "has": lambda: opened.has(names(1)[0]),
        "has_uri": lambda: opened.has(place_of(int(draws.integers(rows)))),
        "has_not": lambda: opened.has("nothing"),
        "read_10": read,
        "get_10": lambda: opened.get(names(10)),
        "update_10": lambda: opened.update(names(10), {"title": "another"}),
        "remove_10": remove,
    }
    figures: dict[str, float] = {}
    for name, operation in operations.items():
        times, spent = [], []
        for _repeat in range(REPEATS):
            started, before = time.perf_counter(), time.process_time()
            operation()
            times.append(1000 * (time.perf_counter() - started))
            spent.append(1000 * (time.process_time() - before))
        figures |= {f"{name}_ms": round(statistics.median(times), 1), f"{name}_first_ms": round(times[0], 1)}
        # Where others use the machine, too, this says what it would take alone.
        figures |= {f"{name}_cpu_ms": round(statistics.median(spent), 1)}
    return {**figures, "peak_mb": peak()}


MEASUREMENTS = {"index": measure_index, "operations": measure_operations}


def in_a_process(what: str, collection: Path, table: Path, rows: int) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.large_table", "--measure", what, str(collection), str(table), str(rows)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return {f"{what}_{name}": value for name, value in json.loads(done.stdout).items()}


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        what, collection, table, count = sys.argv[2:]
        print(json.dumps(MEASUREMENTS[what](Path(collection), Path(table), int(count))))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000
    with tempfile.TemporaryDirectory() as folder:
        collection, table = Path(folder) / "large.mm", Path(folder) / "table.parquet"
        started = time.perf_counter()
        fill(collection, table, rows)
        figures: dict[str, float] = {"rows": rows, "fill_seconds": round(time.perf_counter() - started, 1)}
        for what in MEASUREMENTS:
            figures |= in_a_process(what, collection, table, rows)
    write("large_table", f"{rows:,} made-up rows with vectors of {DIM} dimensions, a title and a year", figures)


if __name__ == "__main__":
    main()
