"""Where tables lie: a folder, or an object store, which here is a real server of the S3 protocol on the loopback.

That server is moto's. It wants another python-dateutil than `constraints.txt` has, so it is installed beside the rest;
CONTRIBUTING.md says how. Without it, what needs it is skipped.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from mmalign import Collection
from mmalign.errors import CollectionFormatError, DamagedError, InputError
from mmalign.store import Location, Store

DIM = 8
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip("moto's server is not installed")
    words = [sys.executable, "-c", SERVER]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate("")


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    from pyarrow.fs import S3FileSystem

    for name, value in {
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    system = S3FileSystem(endpoint_override=server, region="eu-west-1", allow_bucket_creation=True)
    system.create_dir("pictures")
    return f"s3://pictures/{tmp_path.name}"


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return Location.of(tmp_path / "items.lance")
    return Location.of(request.getfixturevalue("bucket")) / "items.lance"


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, DIM)).astype(np.float16)


def contents(store: Store) -> dict[str, dict[str, Any]]:
    table = store.scan(["id", "uri", "year", "embedding"])[1]
    return {row.pop("id"): row for row in table.to_pylist()}


@pytest.mark.parametrize("large", [False, True])
def test_a_store_is_what_a_dictionary_says(place: Location, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        # Few rows are replaced in another way, and ids have scalar indexes.
        monkeypatch.setattr("mmalign.store.lookup._LARGE", 10)
        monkeypatch.setattr("mmalign.store.scalar_indexes._WORTHWHILE", 10)
    matrix = vectors(80)
    expected: dict[str, dict[str, Any]] = {}
    with pytest.raises(CollectionFormatError, match="not a readable item store"):
        Store.open(place)
    store = Store.create(place, dim=DIM)
    store.settle([{"year": 1}])
    for start in (0, 40):
        rows = [{"id": f"i{n}", "uri": f"/{n}", "kind": "vector", "year": n} for n in range(start, start + 40)]
        assert store.upsert(rows, matrix[start : start + 40]) == 40
        store.verify()
    expected = {f"i{n}": {"uri": f"/{n}", "year": n, "embedding": matrix[n].tolist()} for n in range(80)}
    store.keep_indexes()
    assert store.patch([{"id": "i3", "year": 1999}, {"id": "nobody", "year": 0}]) == 1
    expected["i3"]["year"] = 1999
    assert store.edit(store.match(["i4"])[0], ["year"], lambda row: {"year": row["year"] * 500}) == 1
    expected["i4"]["year"] = 2000
    assert store.delete(store.match(["i5", "i6"])[0]) == 2
    del expected["i5"], expected["i6"]
    # Another type for a column that is there, which is a commit of another kind.
    store.settle([{"year": 0.5}])
    assert store.upsert([{"id": "i7", "uri": "/new", "kind": "vector", "year": 0.5}], matrix[8:9]) == 0
    expected["i7"] = {"uri": "/new", "year": 0.5, "embedding": matrix[8].tolist()}
    assert contents(store) == expected

    opened = Store.open(place)
    assert contents(opened) == expected
    years = opened.scan(["id"], where="year > 1000 AND uri != '/3'")[1].column("id").to_pylist()
    assert years == [name for name, row in expected.items() if row["year"] > 1000 and row["uri"] != "/3"]
    row_ids, found = opened.embeddings()
    best = row_ids[np.argsort(-(found.astype(np.float32) @ matrix[9].astype(np.float32)), kind="stable")[:5]]
    scores = {name: np.float32(row["embedding"]) @ matrix[9].astype(np.float32) for name, row in expected.items()}
    assert opened.take(best, ["id"]).column("id").to_pylist() == sorted(scores, key=lambda name: -scores[name])[:5]

    with opened.reads_long():
        store.compact(force=True)
        assert contents(opened) == expected
    store.purge()
    assert contents(store) == contents(Store.open(place)) == expected
    assert opened.latest().version == store.version
    assert [one["version"] for one in lance.dataset(str(place)).versions()] == [store.version]
    assert list(store.find_damage(again=True)) == []


def test_damage_is_found(place: Location) -> None:
    store = Store.create(place, dim=DIM)
    store.upsert([{"id": f"i{n}", "uri": f"/{n}", "kind": "vector"} for n in range(4)], vectors(4))
    store.verify()
    # Past mmalign, so that the checksum is that of what was there.
    lance.dataset(str(place)).update({"uri": "'/other'"}, where="id = 'i2'")
    opened = Store.open(place)
    with pytest.raises(DamagedError, match="i2"):
        opened.verify()
    assert [one.values["id"] for one in opened.find_damage()] == ["i2"]


def test_nothing_is_left_in_the_working_folder(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `s3:` is a name that a folder can have.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / bucket.removeprefix("s3://") / "items.lance").mkdir(parents=True)
    store = Store.create(Location.of(f"{bucket}/items.lance"), dim=DIM)
    store.upsert([{"id": "a", "uri": "/a", "kind": "vector"}], vectors(1))
    with store.reads_long():
        store.compact(force=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_one_file_is_read(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"local")
    assert (Location.of(tmp_path) / "a").read_bytes() == b"local"
    store = Store.create(Location.of(f"{bucket}/items.lance"), dim=DIM)
    store.upsert([{"id": "a", "uri": "/a", "kind": "vector"}], vectors(1))
    [file] = store.dataset.get_fragments()[0].metadata.files
    assert (Location.of(store.dataset.uri) / "data" / file.path).read_bytes().endswith(b"LANC")
    with pytest.raises(OSError, match="none"):
        (Location.of(bucket) / "none").read_bytes()


def test_paths_and_their_uris(tmp_path: Path) -> None:
    assert Location.of((tmp_path / "a b%").as_uri()).path == tmp_path / "a b%"
    assert Location.of("FILE:///a/b").path == Location.of(Path("file:///a/b")).path == Path("/a/b")
    assert Location.of("file://localhost/a%20b").path == Location.of("FILE://LocalHost//a b").path == Path("/a b")
    assert str(Location.of(tmp_path) / "x") == str(tmp_path / "x")
    assert str(Location.of("s3://b/k/") / "x") == "s3://b/k/x"
    assert Location.of(Path("s3://b/k")) == Location.of("S3://b/k") == Location("s3://b/k")
    with pytest.raises(InputError, match="no folder of this machine"):
        _ = Location.of("s3://b/k").path


OTHERS = ["ftp://host/x", "ftp:/host/x", "s3://", "s3://bucket", "s3://bucket/", "memory://x", "file://h/x"]


@pytest.mark.parametrize("place", [*OTHERS, "file://localhost.example/x", "file://localhost"])
def test_other_places_are_refused(place: str) -> None:
    with pytest.raises(InputError, match="s3://BUCKET/KEY"):
        Location.of(place)


def test_a_collection_says_that_it_needs_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("s3://bucket/a.mm", Path("s3://bucket/a.mm")):
        for call in (
            lambda path=path: Collection.create(path, encoder=None, dim=DIM),
            lambda path=path: Collection.open(path),
            lambda path=path: Collection.open_or_create(path),
        ):
            with pytest.raises(InputError, match="no collection yet"):
                call()
    assert list(tmp_path.iterdir()) == []


def test_a_collection_at_a_file_uri(tmp_path: Path) -> None:
    folder = tmp_path / "a b.mm"
    made = Collection.create(folder.as_uri(), encoder=None, dim=DIM)
    made.add_embeddings(["x"], vectors(1))
    assert made.path == folder
    assert len(Collection.open(folder.as_uri())) == len(Collection.open(folder)) == 1


@pytest.mark.parametrize("uri", ["file://localhost", "FILE://LOCALHOST", "file://"])
def test_a_file_uri_may_name_this_machine(tmp_path: Path, uri: str) -> None:
    made = Collection.create(uri + (tmp_path / "a.mm").as_uri().removeprefix("file://"), encoder=None, dim=DIM)
    assert made.path == tmp_path / "a.mm"


@pytest.mark.parametrize(
    "name", ["x:y.mm", "file:rel.mm", "s3:y.mm", "a+b:c.mm", "./memory:y.mm", "1:2.mm", "~.mm", "~/~"]
)
def test_a_name_that_looks_like_another_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name.replace("~/", "home/")
    made = Collection.create(name, encoder=None, dim=DIM)
    made.add_embeddings(["x"], vectors(1))
    assert made.path.absolute() == folder
    for place in (name, Path(name), folder):
        assert [hit.id for hit in Collection.open(place).search(vectors(1)[0])] == ["x"]
    store = Store.open(Location.of(name) / "items.lance")
    assert len(store.latest()) == 1
    inside = [path.relative_to(folder.parent).parts[0] for path in tmp_path.rglob("*") if path.is_file()]
    assert set(inside) == {folder.name}, "nothing lies elsewhere"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = Collection.create("~/photos/a.mm", encoder=None, dim=DIM)
    assert made.path == tmp_path / "home" / "photos" / "a.mm"
    assert Collection.open(Path("~/photos/a.mm")).path == Collection.open_or_create("~/photos/a.mm").path == made.path
    # As a shell does with a user whom nobody knows, and with one that does not stand at the beginning.
    assert Location.of("~nobody-of-this-name/a").path == tmp_path / "here" / "~nobody-of-this-name" / "a"
    assert str(Location.of("a/~/b")) == "a/~/b"
    assert list((tmp_path / "here").iterdir()) == []
