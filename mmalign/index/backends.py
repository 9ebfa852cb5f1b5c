"""The registry of index backends: what builds and loads the indexes of one engine.

A backend is a file, or a package of its own that calls `register_backend`; recipes name the one that they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from mmalign.errors import IndexFileError, InputError, RecipeError
from mmalign.index.base import Index
from mmalign.index.chunks import Chunks
from mmalign.index.files import read_header
from mmalign.index.planning.recipe import Recipe
from mmalign.utils import Float32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What is to be built of which vectors.

    Attributes:
        recipe: The design.
        chunks: The vectors, called once for each pass over them.
        rows: How many there are.
        dim: Their width.
        queries: A sample of the queries that will be asked, float32 of shape (q, dim); None where there is none.
        device: Where it is built: `cpu` or `cuda`.
        memory: How many bytes building may take; None for no bound.
        advance: Called with the number of vectors after each chunk is added; None where nobody asks.
        seed: Of what is drawn at random.
        workspace: Folder that outlives a kill, where what takes long may go on; None for a temporary one.
    """

    recipe: Recipe = field(kw_only=False)
    chunks: Chunks = field(kw_only=False)
    rows: int
    dim: int
    queries: Float32Array | None = None
    device: str = "cpu"
    memory: int | None = None
    advance: Callable[[int], None] | None = None
    seed: int = 0
    workspace: Path | None = None

    def fill(self, index: Index) -> None:
        """Add all vectors to an index, chunk by chunk."""
        for ids, vectors in self.chunks():
            index.add(ids, vectors)
            if self.advance is not None:
                self.advance(len(ids))


@runtime_checkable
class IndexBackend(Protocol):
    """Builds and loads indexes of one engine."""

    def build(self, request: BuildRequest) -> Index:
        """Build an index.

        Args:
            request: What of which vectors.

        Returns:
            The index, with all vectors in it.

        Raises:
            RecipeError: This backend cannot build that.
            MissingExtraError: The engine is not installed.
        """
        ...

    def load(self, folder: Path, *, mmap: bool = True) -> Index:
        """Load an index that `Index.save` wrote.

        Args:
            folder: Where it lies.
            mmap: Read vectors from disk when they are needed.

        Returns:
            The index.

        Raises:
            IndexFileError: A file is missing or damaged.
            MissingExtraError: The engine is not installed.
        """
        ...


# By the name in a recipe and in the header of an index; a text is `module:class`, imported at first use.
_BACKENDS: dict[str, IndexBackend | str] = {
    "exact": "mmalign.index.exact:ExactBackend",
    "faiss": "mmalign.index.faiss.build:FaissBackend",
}


def register_backend(name: str, backend: IndexBackend | str) -> None:
    """Make another engine known: recipes may name it, and its indexes are loaded by it.

    Args:
        name: As in a recipe's `backend = "..."` and in the `kind` of the header that `Index.save` writes; a backend of
            that name is replaced.
        backend: The backend, or `module:class` of one without arguments, imported when it is needed first.

    Raises:
        InputError: Neither.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"the name of an index backend is a text that is not empty, got {name!r}")
    if not (isinstance(backend, IndexBackend) or (isinstance(backend, str) and ":" in backend)):
        raise InputError(f"an index backend has build() and load(), or is named as module:class, got {backend!r}")
    _BACKENDS[name] = backend


def find_backend(name: str) -> IndexBackend:
    """Return a backend.

    Args:
        name: Its name.

    Returns:
        The backend.

    Raises:
        RecipeError: There is none of that name; those that are known are named.
    """
    if name not in _BACKENDS:
        raise RecipeError(
            f"no index backend is called {name!r}; known are {', '.join(sorted(_BACKENDS))}, and "
            "mmalign.register_backend makes another one known"
        )
    backend = _BACKENDS[name]
    if isinstance(backend, str):
        module, kind = backend.split(":")
        backend = _BACKENDS[name] = getattr(import_module(module), kind)()
    return backend


def load_index(folder: Path, *, mmap: bool = True) -> Index:
    """Load an index of any kind by the description beside its files.

    Args:
        folder: Where `Index.save` wrote it.
        mmap: Read vectors from disk when they are needed; such an index cannot be added to.

    Returns:
        The index.

    Raises:
        IndexFileError: A file is missing or damaged, or nobody knows its kind.
        MissingExtraError: The engine is not installed.
    """
    kind = read_header(folder)["kind"]
    try:
        backend = find_backend(kind)
    except RecipeError as error:
        raise IndexFileError(
            f"{folder} holds an index of kind {kind!r}, which this mmalign does not know; update it, or import the "
            "package that makes it known"
        ) from error
    return backend.load(folder, mmap=mmap)
