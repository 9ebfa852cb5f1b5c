"""The index protocol: what maps vectors to their nearest neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import InputError
from mmalign.utils import Float32Array, Int64Array

AllowedRows: TypeAlias = Int64Array | NDArray[np.bool_]
"""Allowed ids, int64 of shape (m,); or a mask over the index's positions, bool of shape (positions,)."""

FilterSupport: TypeAlias = Literal["exact", "selector", "none"]
"""How an index filters.

`exact`: a filter costs no recall. `selector`: the index skips rows while it looks, and looks further the fewer rows are
allowed. `none`: it cannot skip; more is fetched than was asked for and the rest thrown away.
"""


@runtime_checkable
class Index(Protocol):
    """Finds the vectors with the largest inner product; higher scores are better everywhere.

    Vectors are embeddings of length 1, or of any length in a collection that goes by inner product. An index keeps them
    at positions 0, 1, 2...; `ids` names the row at each. A removed row keeps its position and is never found again.
    Searches may run in several threads at once; they may not run while the index is trained, added to or removed from.
    """

    @property
    def factory(self) -> str:
        """What the index is made of: `exact`, or a FAISS factory string."""
        ...

    @property
    def dim(self) -> int:
        """Width of a vector."""
        ...

    @property
    def ntotal(self) -> int:
        """How many vectors can be found, the removed ones left out."""
        ...

    @property
    def ids(self) -> Int64Array:
        """The id at each position, int64 of shape (positions,), removed rows included."""
        ...

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which positions are not removed, bool of shape (positions,); not to be written to."""
        ...

    @property
    def filter_support(self) -> FilterSupport:
        """How the index filters."""
        ...

    @property
    def min_selectivity(self) -> float:
        """Share of allowed rows, 0 to 1, below which exact search over the allowed vectors is the better choice."""
        ...

    @property
    def exact_scores(self) -> bool:
        """Whether scores are inner products with the vectors, right to about 1e-3 of their lengths, not of codes."""
        ...

    @property
    def exhaustive(self) -> bool:
        """Whether the hits are certain to be the true nearest ones."""
        ...

    @property
    def default_effort(self) -> int | None:
        """The effort of a search that names none; None where effort means nothing."""
        ...

    def max_effort(self, share: float = 1.0) -> int | None:
        """Return the effort beyond which nothing more is found.

        Args:
            share: Share of the rows that a filter allows, above 0 and up to 1; filtered searches look further by
                themselves.

        Returns:
            The effort; None where there is no such bound.
        """
        ...

    def __len__(self) -> int: ...

    def train(self, vectors: ArrayLike) -> None:
        """Learn what the index needs to know about the data before vectors are added.

        Args:
            vectors: Array-like of shape (n, dim), a random sample of the data.

        Raises:
            RecipeError: Too few vectors for this index.
        """
        ...

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add vectors.

        Args:
            ids: Integers of shape (n,), at least 0, none of them in the index.
            vectors: Array-like of shape (n, dim).

        Raises:
            InputError: Duplicate or negative ids, NaN or infinity, another number of ids than vectors.
            DimensionError: The width differs.
        """
        ...

    def remove(self, ids: ArrayLike) -> int:
        """Remove vectors; ids that are not in the index are passed over.

        Args:
            ids: Integers of shape (m,).

        Returns:
            How many were removed.
        """
        ...

    def search(
        self, vectors: ArrayLike, k: int, *, where: AllowedRows | None = None, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest vectors of each query.

        Args:
            vectors: Queries of shape (q, dim) or (dim,).
            k: How many, at least 0.
            where: Only these: ids of shape (m,), or a mask over positions of shape (positions,), which is faster.
            effort: How hard to look, at least 1; None for the default. Exhaustive indexes ignore it.

        Returns:
            `(scores, ids)`, float32 and int64 of shape (q, min(k, ntotal)), best first. Where fewer are allowed or
            found, the places left over are last, with id -1 and score -inf.

        Raises:
            InputError: `k` is negative, `effort` below 1, or a mask of another length.
            DimensionError: The width differs.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the index's files into a folder.

        Args:
            folder: Made where it does not exist.

        Raises:
            StorageError: The disk refused.
        """
        ...

    @classmethod
    def load(cls, folder: Path, *, mmap: bool = True) -> Self:
        """Read what `save` wrote.

        Args:
            folder: The folder.
            mmap: Read vectors from disk when they are needed; such an index cannot be added to.

        Returns:
            The index.

        Raises:
            IndexFileError: A file is missing, truncated or damaged.
        """
        ...


@runtime_checkable
class ScansExactly(Protocol):
    """An index that can hold the vectors themselves, and then compare a query with each of them."""

    @property
    def scans(self) -> bool:
        """Whether this one holds them."""
        ...

    def scan(self, vectors: ArrayLike, k: int, *, where: AllowedRows | None = None) -> tuple[Float32Array, Int64Array]:
        """Find the true nearest vectors; see `Index.search`."""
        ...


@runtime_checkable
class SearchesPositions(Protocol):
    """An index that can be searched as it stands, removed rows and all, which takes no filter."""

    def search_positions(
        self, vectors: ArrayLike, k: int, *, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest of all vectors that the index holds.

        Args:
            vectors: Queries of shape (q, dim) or (dim,).
            k: How many, at least 0.
            effort: As for `Index.search`.

        Returns:
            `(scores, positions)`, float32 and int64 of shape (q, min(k, positions)), best first, removed rows among
            them; -inf and -1 for what was not found.

        Raises:
            As `Index.search`.
        """
        ...


@runtime_checkable
class Layers(Protocol):
    """What kind of index one is, for the costs of a search."""

    @property
    def core(self) -> str:
        """The innermost layer: `scan`, `ivf`, `hnsw` or another."""
        ...

    @property
    def lists(self) -> int:
        """Number of inverted lists, 0 where there are none."""
        ...

    @property
    def refines(self) -> bool:
        """Whether candidates are compared again with better codes."""
        ...

    @property
    def exact_scores(self) -> bool:
        """Whether scores are inner products with the vectors, right to about 1e-3."""
        ...


@runtime_checkable
class TellsLayers(Protocol):
    """An index that tells what it is made of, so that its searches can be planned by their costs."""

    @property
    def layers(self) -> Layers:
        """What it is made of."""
        ...

    @property
    def k_factor(self) -> int:
        """How many times k candidates are compared again, where there is a refinement."""
        ...


@runtime_checkable
class MovesToDevice(Protocol):
    """An index that can be searched on a graphics card."""

    @property
    def device(self) -> str:
        """Where it is searched: `cpu` or `cuda`."""
        ...

    def to_device(self, device: str) -> None:
        """Search on a device from now on.

        Args:
            device: `cpu` or `cuda`.

        Raises:
            RecipeError: This index cannot be searched there.
            EnvironmentConflictError: There is no such device.
        """
        ...


@runtime_checkable
class SearchesOnDevice(Protocol):
    """An index that says of a search why it was not answered on the device that it was moved to."""

    @property
    def device(self) -> str:
        """Where it is searched: `cpu` or `cuda`."""
        ...

    def search_on_device(
        self, vectors: ArrayLike, k: int, *, where: AllowedRows | None = None, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array, str]:
        """Find the nearest vectors of each query, as `Index.search` does.

        Args:
            vectors: As for `Index.search`.
            k: As for `Index.search`.
            where: As for `Index.search`.
            effort: As for `Index.search`.

        Returns:
            `(scores, ids, refusal)`: hits as of `Index.search`, and why the processor found them; empty where the
            device did.
        """
        ...


def check_search(k: int, effort: int | None) -> None:
    """Refuse a search that makes no sense.

    Args:
        k: How many neighbours.
        effort: How hard to look.

    Raises:
        InputError: `k` is negative or `effort` below 1.
    """
    check_k(k)
    if effort is not None and effort < 1:
        raise InputError(f"effort must be at least 1, got {effort}; leave it out for the default")


def check_k(k: int) -> None:
    """Refuse what is no number of neighbours.

    Args:
        k: How many neighbours; any integer from 0 on, however large.

    Raises:
        InputError: `k` is negative or not an integer.
    """
    # Almost every k is an `int`, and to ask what else it may be takes longer than that.
    if type(k) is int and k >= 0:
        return
    if isinstance(k, bool | np.bool_) or not isinstance(k, int | np.integer):
        raise InputError(f"k must be an integer of at least 0, got {k!r}")
    if k < 0:
        raise InputError(f"k must be at least 0, got {k}")


def no_hits(queries: int, k: int) -> tuple[Float32Array, Int64Array]:
    """Return the result that holds no hit.

    Args:
        queries: Number of queries.
        k: Number of places.

    Returns:
        `(scores, ids)` of shape (queries, k), -inf and -1.
    """
    return np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int64)
