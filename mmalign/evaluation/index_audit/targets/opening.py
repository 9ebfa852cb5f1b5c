"""Which engine a source is for, and opening it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Protocol
from urllib.parse import urlsplit

from mmalign.errors import InputError, MissingExtraError, SourceError
from mmalign.evaluation.index_audit.target import AuditTarget
from mmalign.utils import first_line

_PORTS = {6333: "qdrant", 6334: "qdrant", 19530: "milvus"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a database the vectors are.

    Attributes:
        engine: faiss, hnswlib, lancedb, pgvector, milvus or qdrant; None to tell from the source.
        table: The table or collection; None where there is but one.
        column: The column, field or named vector; None where there is but one.
        metric: cosine, ip or l2; None where the database says which.
    """

    engine: str | None = None
    table: str | None = None
    column: str | None = None
    metric: str | None = None


class Opener(Protocol):
    """What makes an `AuditTarget` of a source."""

    def __call__(self, source: str, place: Place) -> AuditTarget:
        """Open a source.

        Args:
            source: A path or an address.
            place: Where in it the vectors are.

        Returns:
            The target.
        """
        ...


# Where each engine's file is, and the class in it. Loaded late: none of the libraries is needed for another engine.
_ENGINES = {
    "faiss": ("faiss_file", "FaissTarget"),
    "hnswlib": ("hnswlib_file", "HnswlibTarget"),
    "lancedb": ("lancedb_table", "LanceTarget"),
    "milvus": ("milvus_collection", "MilvusTarget"),
    "pgvector": ("pgvector_table", "PgvectorTarget"),
    "qdrant": ("qdrant_collection", "QdrantTarget"),
}
_OPENERS: dict[str, Opener] = {}


def register_target(engine: str, opener: Opener) -> None:
    """Make another engine known to `audit`.

    Args:
        engine: Its name, for `Place.engine` and `--engine`.
        opener: Makes an `AuditTarget` of a source.

    Raises:
        InputError: There is an engine of this name.
    """
    if engine in engines():
        raise InputError(f"there is an engine {engine!r} already")
    _OPENERS[engine] = opener


def engines() -> tuple[str, ...]:
    """The names of the engines, in alphabetical order."""
    return tuple(sorted({*_ENGINES, *_OPENERS}))


def open_target(source: str | Path, place: Place) -> AuditTarget:
    """Open what is to be audited.

    Args:
        source: A path or an address.
        place: Where in it the vectors are.

    Returns:
        The target; whoever opens it closes it.

    Raises:
        InputError: An engine or a metric that there is none of, or a source that says too little.
        SourceError: Nothing there, or nothing that can be read.
        MissingExtraError: The engine's package is not installed.
    """
    engine = place.engine or guess_engine(str(source))
    if engine in _OPENERS:
        return _OPENERS[engine](str(source), place)
    if engine not in _ENGINES:
        raise InputError(f"unknown engine {engine!r}; there are {', '.join(engines())}")
    module, name = _ENGINES[engine]
    opened: AuditTarget = getattr(import_module(f"{__package__}.{module}"), name)(str(source), place)
    return opened


def guess_engine(source: str) -> str:
    """Tell from a source which engine it is for.

    Args:
        source: A path or an address.

    Returns:
        The engine's name.

    Raises:
        SourceError: Nothing is there.
        InputError: It could be for several engines, or is for none.
    """
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise InputError(f"{source} is no address: {error}") from error
    if parts.scheme in ("postgresql", "postgres"):
        return "pgvector"
    if parts.scheme in ("http", "https", "tcp", "grpc"):
        if parts.port in _PORTS:
            return _PORTS[parts.port]
        raise InputError(f"{source} may be a Milvus or a Qdrant server; say which: --engine milvus or --engine qdrant")
    if parts.scheme in ("s3", "gs", "az", "db"):
        return "lancedb"
    path = Path(source)
    if not path.exists():
        raise SourceError(
            f"{source} is neither a file or folder here nor an address such as postgresql://user@host/name or "
            "http://host:6333"
        )
    if path.is_dir():
        return _guess_folder(path)
    with path.open("rb") as file:
        head = file.read(8)
    if head[:1] == b"I" and head[:4].isalnum():
        return "faiss"
    if head == bytes(8):
        return "hnswlib"
    raise InputError(f"{source} is no FAISS and no hnswlib file; say what it is: --engine {' or '.join(engines())}")


def _guess_folder(path: Path) -> str:
    if (path / "collection.json").exists() and (path / "items.lance").exists():
        raise InputError(
            f"{path} is a collection of mmalign, whose recall is measured when its index is built; measure it again "
            f"with: mmalign doctor --collection {path}"
        )
    if path.suffix == ".lance" or any(path.glob("*.lance")):
        return "lancedb"
    if (path / "meta.json").exists() and (path / "collection").is_dir():
        return "qdrant"
    if path.suffix == ".db":
        return "milvus"
    raise InputError(f"{path} is a folder of no engine that is known; say which: --engine {' or '.join(engines())}")


def load_package(package: str, *, engine: str, extra: str, distribution: str | None = None) -> ModuleType:
    """Import an engine's package.

    Args:
        package: The module.
        engine: What needs it, as the user would call it.
        extra: The extra of mmalign that brings it.
        distribution: The name of the package to install, where it is not the module's.

    Returns:
        The module.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtraError(f"auditing {engine}", package=distribution or package, extra=extra) from error


def installed(distribution: str) -> str:
    """The version of an installed package, empty where it is not known."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


@contextmanager
def engine_errors(
    what: str, *kinds: type[BaseException], refuse: type[InputError] = SourceError, remedy: str = ""
) -> Iterator[None]:
    """Say what an engine refuses as an error of mmalign.

    Args:
        what: What was done, for the error's text.
        kinds: What the engine raises.
        refuse: What is raised instead.
        remedy: What to do.
    """
    try:
        yield
    except kinds as error:
        raise refuse(f"{what}: {first_line(error)}" + (f"; {remedy}" if remedy else "")) from error
