from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import IndexFileError, StorageError
from mmalign.index.exact import ExactIndex
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.lifecycle import versions as publish
from mmalign.index.lifecycle.versions import IndexManifest
from mmalign.utils.json_checksum import with_checksum

STEPS = ["write_files", "checksum_files", "write_manifest", "sync_files", "rename_version", "write_pointer",
         "replace_pointer"]  # fmt: skip
DIM = 4


def small_index(rows: int) -> ExactIndex:
    index = ExactIndex(DIM)
    index.add(np.arange(rows), np.eye(DIM, dtype=np.float32)[np.arange(rows) % DIM])
    return index


def manifest_of(rows: int, version: int = 1) -> IndexManifest:
    return IndexManifest(
        recipe="flat", factory="exact", dim=DIM, rows=rows, dataset_version=version, fingerprint="f", contract={"a": 1}
    )


def rows_in_use(root: Path) -> int | None:
    """Load the version in use from nothing, and say how many rows it has."""
    publish._verified.clear()
    loaded = publish.load_current(root, verify=True)
    if loaded is None:
        return None
    index, manifest = loaded
    assert publish.current(root) == root / manifest.version
    assert publish.read_manifest(root) == manifest
    assert index.search(np.ones(DIM), 1)[1].tolist() == [[0]]
    return len(index)


def test_nothing_published(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        assert publish.current(root) is None
        assert publish.read_manifest(root) is None
        assert publish.load_current(root) is None
        assert publish.clean(root) == []


def test_published_index_is_in_use(tmp_path: Path) -> None:
    written = publish.publish(tmp_path / "index", small_index(5), manifest_of(5, version=42))
    assert written.version.startswith("000000000042-")
    assert written.created.endswith("+00:00")
    assert set(written.checksums) == {"vectors.npy", "ids.npy", "removed.npy", "index.json"}
    assert replace(written, version="", created="", checksums={}, bytes=0) == manifest_of(5, version=42)
    assert rows_in_use(tmp_path / "index") == 5
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [".lock", written.version, "CURRENT"]


def test_faiss_index_comes_back(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32)
    index = FaissIndex("HNSW8", DIM)
    index.add(np.arange(100, 150), vectors)
    index.remove([120])
    publish.publish(tmp_path, index, replace(manifest_of(49), factory="HNSW8"))
    loaded = publish.load_current(tmp_path)
    assert loaded is not None
    for left, right in zip(index.search(vectors, 60), loaded[0].search(vectors, 60), strict=True):
        np.testing.assert_array_equal(left, right)


def test_manifest_round_trip_and_formats() -> None:
    manifest = replace(manifest_of(3), version="v", checksums={"a": "b"})
    values = json.loads(json.dumps(manifest.to_dict()))
    assert IndexManifest.from_dict(values) == manifest
    assert IndexManifest.from_dict(with_checksum(values | {"later": 1})) == manifest
    with pytest.raises(IndexFileError, match="checksum"):
        IndexManifest.from_dict(values | {"rows": 4})
    # Earlier versions wrote none.
    del values["checksum"]
    assert IndexManifest.from_dict(values) == manifest
    with pytest.raises(IndexFileError, match="format 2, this mmalign reads up to 1"):
        IndexManifest.from_dict(values | {"format": 2})
    del values["factory"]
    with pytest.raises(IndexFileError, match="damaged"):
        IndexManifest.from_dict(values)


@pytest.mark.parametrize("name", ["vectors.npy", "ids.npy", "removed.npy", "index.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_damage_is_found(tmp_path: Path, name: str, damage: str) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(5))
    folder = publish.current(tmp_path)
    assert folder is not None
    content = bytearray((folder / name).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x80
        (folder / name).write_bytes(content)
    elif damage == "cut":
        (folder / name).write_bytes(content[:-3])
    else:
        (folder / name).unlink()
    with pytest.raises(IndexFileError, match="build the index again"):
        publish.load_current(tmp_path)


def test_large_files_are_checked_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(5))
    folder = publish.current(tmp_path)
    assert folder is not None
    content = bytearray((folder / "vectors.npy").read_bytes())
    content[-1] ^= 1
    (folder / "vectors.npy").write_bytes(content)
    monkeypatch.setattr(publish, "_VERIFY_BYTES", 10)
    assert publish.load_current(tmp_path) is not None
    with pytest.raises(IndexFileError, match="checksum"):
        publish.load_current(tmp_path, verify=True)


def test_checksums_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(5))
    read: list[Path] = []
    sha256 = publish._sha256
    monkeypatch.setattr(publish, "_sha256", lambda path: (read.append(path), sha256(path))[1])
    publish.load_current(tmp_path)
    assert len(read) == 4
    publish.load_current(tmp_path)
    assert len(read) == 4


@pytest.mark.parametrize("pointer", ["", "../elsewhere", "\n", "a/b", "v.tmp-1"])
def test_pointer_that_names_no_version(tmp_path: Path, pointer: str) -> None:
    (tmp_path / "CURRENT").write_text(pointer)
    assert publish.current(tmp_path) is None
    with pytest.raises(IndexFileError, match="CURRENT is damaged"):
        publish.load_current(tmp_path)


def test_pointer_to_a_missing_version(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("gone\n")
    with pytest.raises(IndexFileError, match="gone"):
        publish.load_current(tmp_path)


def test_manifest_that_does_not_fit_its_index(tmp_path: Path) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(6))
    with pytest.raises(IndexFileError, match=r"6 rows.*5 rows"):
        publish.load_current(tmp_path)


@pytest.mark.parametrize("step", ["_read_manifest", "_check_files", "_sha256", "load_index"])
@pytest.mark.parametrize("newer", [True, False])
def test_version_that_goes_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, newer: bool
) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(5))
    old = publish.current(tmp_path)
    assert old is not None
    original = getattr(publish, step)

    def swap_meanwhile(path: Path, *args: object, **options: object) -> object:
        if old.exists() and path in (old, *old.iterdir()):
            if newer:
                publish.publish(tmp_path, small_index(7), manifest_of(7, version=2))
            shutil.rmtree(old)
        return original(path, *args, **options)

    monkeypatch.setattr(publish, step, swap_meanwhile)
    if newer:
        loaded = publish.load_current(tmp_path)
        assert loaded is not None
        assert len(loaded[0]) == 7
    else:
        with pytest.raises(IndexFileError, match="build the index again"):
            publish.load_current(tmp_path)


def test_clean_keeps_what_is_asked_for(tmp_path: Path) -> None:
    versions = [publish.publish(tmp_path, small_index(i), manifest_of(i, version=i)).version for i in (1, 2, 3, 4)]
    for i, version in enumerate(versions):
        os.utime(tmp_path / version, (i, i))
    assert sorted(publish.clean(tmp_path)) == versions[:2]
    assert rows_in_use(tmp_path) == 4
    assert publish.clean(tmp_path, keep=1) == [versions[2]]
    assert publish.clean(tmp_path, keep=0) == []
    assert rows_in_use(tmp_path) == 4


def test_clean_removes_only_what_dead_processes_left(tmp_path: Path) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(5))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"v.tmp-{dead.pid}", f"w.tmp-{os.getpid()}"):
        (tmp_path / name).mkdir()
    (tmp_path / f"CURRENT.tmp-{dead.pid}-v").write_text("v")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    assert sorted(publish.clean(tmp_path)) == sorted([f"v.tmp-{dead.pid}", f"CURRENT.tmp-{dead.pid}-v"])
    assert {"notes.txt", "folder", f"w.tmp-{os.getpid()}"} <= {path.name for path in tmp_path.iterdir()}
    assert rows_in_use(tmp_path) == 5


def test_withdrawn_index_is_not_in_use(tmp_path: Path) -> None:
    publish.withdraw(tmp_path / "missing")
    version = publish.publish(tmp_path, small_index(5), manifest_of(5)).version
    publish.withdraw(tmp_path)
    assert rows_in_use(tmp_path) is None
    assert publish.clean(tmp_path, keep=0) == [version]


def test_open_index_outlives_its_files(tmp_path: Path) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(5))
    loaded = publish.load_current(tmp_path)
    assert loaded is not None
    publish.publish(tmp_path, small_index(6), manifest_of(6))
    assert publish.clean(tmp_path, keep=1) == [loaded[1].version]
    assert loaded[0].search(np.ones(DIM), 9)[1].tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int) -> None:
    publish.publish(tmp_path, small_index(5), manifest_of(5))
    before = sorted(path.name for path in tmp_path.iterdir())

    def refuse(*args: object) -> None:
        if isinstance(args[0], Path) and step == "write_files":
            args[0].mkdir()
            (args[0] / "half").write_bytes(b"written")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(publish, step, refuse)
    with pytest.raises(StorageError, match="free some space" if code == errno.ENOSPC else "read-only"):
        publish.publish(tmp_path, small_index(6), manifest_of(6))
    assert rows_in_use(tmp_path) == 5
    # A version that has its name already is left for `clean`.
    monkeypatch.undo()
    publish.clean(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from mmalign.index import ids
    from mmalign.index.lifecycle import versions as publish
    from tests.index.lifecycle.test_versions import manifest_of, small_index

    root, step, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    owner, name = (ids.IdMap, "save") if step == "ids" else (publish, step)
    real = getattr(owner, name)

    def fatal(*args):
        if moment == "after":
            real(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, fatal)
    publish.publish(root, small_index(6), manifest_of(6, version=2))
""")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["ids", *STEPS])
def test_killed_while_publishing(tmp_path: Path, root: Path, step: str, moment: str) -> None:
    (tmp_path / "empty").mkdir()
    publish.publish(tmp_path / "used", small_index(5), manifest_of(5))
    for folder, before in (("empty", None), ("used", 5)):
        run = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path / folder, step, moment], cwd=root, capture_output=True, check=False
        )
        assert run.returncode == -signal.SIGKILL, run.stderr.decode()
        swapped = (step, moment) == ("replace_pointer", "after")
        assert rows_in_use(tmp_path / folder) == (6 if swapped else before)
        # The next run goes on as if nothing had been.
        publish.clean(tmp_path / folder)
        assert rows_in_use(tmp_path / folder) == (6 if swapped else before)
        publish.publish(tmp_path / folder, small_index(7), manifest_of(7, version=3))
        publish.clean(tmp_path / folder, keep=1)
        assert rows_in_use(tmp_path / folder) == 7
        assert len(list((tmp_path / folder).iterdir())) == 3


def test_many_publish_clean_and_load_at_once(tmp_path: Path) -> None:
    publish.publish(tmp_path, small_index(1), manifest_of(1))

    def write(i: int) -> None:
        for _ in range(5):
            publish.publish(tmp_path, small_index(i), manifest_of(i, version=i))
            publish.clean(tmp_path, keep=1)

    def read(_: int) -> list[int]:
        return [len(loaded[0]) for _ in range(30) if (loaded := publish.load_current(tmp_path)) is not None]

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, i) for i in (1, 2, 3)]
        readers = [pool.submit(read, i) for i in range(3)]
        for writer in writers:
            writer.result()
        for reader in readers:
            assert len(reader.result()) == 30
    assert len(list(tmp_path.iterdir())) == 3


def test_a_pointer_sees_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer = publish.Pointer(tmp_path)
    assert pointer.version() is None
    seen = []
    for step in range(6):
        if step == 3:
            publish.withdraw(tmp_path)
        else:
            publish.publish(tmp_path, small_index(1 + step), manifest_of(1 + step))
        current = publish.current(tmp_path)
        assert pointer.version() == (None if current is None else current.name)
        seen.append(pointer.version())
    assert len(set(seen)) == 6
    # Long after, it is not read any more until somebody replaces it.
    file = tmp_path / "CURRENT"
    os.utime(file, (1e9, 1e9))
    assert pointer.version() == seen[-1]
    with monkeypatch.context() as patched:
        patched.setattr(publish, "current", lambda root: pytest.fail("read again"))
        assert pointer.version() == seen[-1]
    for text, version in (("../elsewhere", None), ("", None), ("000000000001-00000000", "000000000001-00000000")):
        file.write_text(text)
        assert pointer.version() == version
    file.unlink()
    assert pointer.version() is None


def test_a_pointer_that_was_written_just_now_is_read_again(tmp_path: Path) -> None:
    # Both of one size, in one file, at one time.
    publish.publish(tmp_path, small_index(1), manifest_of(1))
    pointer, file = publish.Pointer(tmp_path), tmp_path / "CURRENT"
    first = pointer.version()
    assert first is not None
    state = file.stat()
    file.write_text(first[::-1] + "\n")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert pointer.version() == first[::-1]
