"""`mmalign audit` as a person and a program use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import InputError, MissingExtraError
from mmalign.evaluation.index_audit.targets.opening import guess_engine, load_package
from tests.evaluation.index_audit.worlds import DIM, make_world

faiss = pytest.importorskip("faiss")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmalign.cli", "audit", *words]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("audit")
    world = make_world(600)
    index = faiss.index_factory(DIM, "IVF16,Flat")
    index.train(world.vectors)
    index.add(world.vectors)
    faiss.write_index(index, str(made / "x.faiss"))
    np.save(made / "words.npy", world.queries)
    return made


def test_json_and_words(folder: Path) -> None:
    options = [str(folder / "x.faiss"), "--queries", str(folder / "words.npy"), "--share", "0.3", "--count", "100"]
    done = run(*options, "--json", "--target", "0.9")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kinds"] == {"words": 100, "near": 100}
    assert [one["rows"] for one in told["results"]] == [600, 180]
    now, chosen = told["results"][0]["now"], told["results"][0]["chosen"]
    assert now["setting"] == {"nprobe": 1}
    assert now["recall"]["words"]["mean"] < 0.9
    assert chosen["recall"]["words"]["lower"] >= 0.9
    named = run(str(folder / "x.faiss"), "-q", f"asked={folder / 'words.npy'}", "--share", "0", "--count", "40")
    assert named.returncode == 0, named.stderr
    assert "asked" in named.stdout
    assert "recall@10" in named.stdout
    assert "nprobe=1 (as it is)" in " ".join(named.stdout.split())


def test_errors_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(100))
    done = run(str(tmp_path / "none"))
    assert done.returncode == 1
    assert "postgresql://" in done.stderr
    twice = run(str(folder / "x.faiss"), "-q", str(folder / "words.npy"), "-q", str(folder / "words.npy"))
    assert twice.returncode == 2
    assert "KIND=PATH" in twice.stderr


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'mmalign\[qdrant\]'"):
        load_package("no_such_package_of_mine", engine="Qdrant", extra="qdrant")


@pytest.mark.parametrize(
    ("source", "engine"),
    [
        ("postgresql://me@here/shop", "pgvector"),
        ("http://here:6333", "qdrant"),
        ("http://here:19530", "milvus"),
        ("s3://bucket/tables", "lancedb"),
    ],
)
def test_addresses_say_their_engine(source: str, engine: str) -> None:
    assert guess_engine(source) == engine


def test_an_address_that_may_be_of_two_engines() -> None:
    with pytest.raises(InputError, match="--engine milvus"):
        guess_engine("http://here:8080")
