"""Exact search in NumPy: the oracle, and the default for small collections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import IndexFileError, InputError, RecipeError
from mmalign.index.base import AllowedRows, FilterSupport, check_search, no_hits
from mmalign.index.compare import compare_all
from mmalign.index.files import read_header, write_header
from mmalign.index.ids import IdMap, load_array
from mmalign.utils import Float32Array, Int64Array, as_matrix, storage_errors

if TYPE_CHECKING:
    from mmalign.index.backends import BuildRequest

_VECTORS = "vectors.npy"
_KIND = "exact"
# What float16 holds.
_LARGEST = float(np.finfo(np.float16).max)


class ExactIndex:
    """Compares the query with every vector; needs no FAISS and no training.

    Vectors are kept in float16: half the memory, and scores of unit vectors right to about 1e-3, those of longer ones
    to about a thousandth of the two lengths.

    Args:
        dim: Width of a vector.
    """

    factory = "exact"
    filter_support: FilterSupport = "exact"
    min_selectivity = 0.0
    exact_scores = True
    exhaustive = True
    default_effort: int | None = None

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise InputError(f"dim must be at least 1, got {dim}")
        self._buffer: NDArray[np.float16] = np.zeros((0, dim), np.float16)
        self._map = IdMap()

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self._buffer.shape[1])

    @property
    def ntotal(self) -> int:
        """How many vectors can be found."""
        return self._map.count

    @property
    def ids(self) -> Int64Array:
        """The id at each position, int64 of shape (positions,)."""
        return self._map.ids

    @property
    def live(self) -> NDArray[np.bool_]:
        """Which positions are not removed, bool of shape (positions,)."""
        return self._map.live

    def max_effort(self, share: float = 1.0) -> int | None:
        """Return None: effort means nothing here."""
        return None

    def __len__(self) -> int:
        return self.ntotal

    def train(self, vectors: ArrayLike) -> None:
        """Check the vectors; exact search learns nothing from them."""
        as_matrix(vectors, dim=self.dim)

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Add vectors; see `Index.add`."""
        matrix = as_matrix(vectors, dim=self.dim)
        new = self._map.check_new(ids, len(matrix))
        if matrix.size and np.abs(matrix).max() > _LARGEST:
            raise InputError("vectors hold values too large for float16, above 65,504; scale them down first")
        rows = len(self._map)
        needed = rows + len(matrix)
        if needed > len(self._buffer) or not self._buffer.flags.writeable:
            # Doubling keeps many small adds cheap.
            grown = np.empty((max(needed, min(2 * rows, rows + 1_000_000)), self.dim), np.float16)
            grown[:rows] = self._buffer[:rows]
            self._buffer = grown
        self._buffer[rows:needed] = matrix
        self._map.extend(new)

    def remove(self, ids: ArrayLike) -> int:
        """Remove vectors; see `Index.remove`."""
        return self._map.remove(ids)

    def search(
        self, vectors: ArrayLike, k: int, *, where: AllowedRows | None = None, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest vectors of each query; see `Index.search`."""
        check_search(k, effort)
        queries = as_matrix(vectors, dim=self.dim, name="queries")
        known = self._map
        scores, positions = compare_all(queries, self._buffer[: len(known)], k, mask=known.allowed(where))
        found, ids = scores.shape[1], known.ids[positions]
        if found == min(k, known.count):
            return scores, ids
        # A filter leaves fewer.
        all_scores, all_ids = no_hits(len(queries), min(k, known.count))
        all_scores[:, :found], all_ids[:, :found] = scores, ids
        return all_scores, all_ids

    def save(self, folder: Path) -> None:
        """Write `vectors.npy`, the ids and `index.json`; see `Index.save`."""
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / _VECTORS, self._buffer[: len(self._map)])
            self._map.save(folder)
            files = {_VECTORS: (folder / _VECTORS).stat().st_size}
            write_header(
                folder,
                {"kind": _KIND, "factory": self.factory, "dim": self.dim, "rows": len(self._map), "files": files},
            )

    @classmethod
    def load(cls, folder: Path, *, mmap: bool = True) -> Self:
        """Read what `save` wrote; see `Index.load`. Adding to a memory-mapped index copies it into memory."""
        header = read_header(folder, _KIND)
        vectors = load_array(folder / _VECTORS, mmap=mmap)
        shape = (header["rows"], header["dim"])
        if vectors.dtype != np.float16 or vectors.shape != shape:
            raise IndexFileError(
                f"{folder / _VECTORS}: expected float16 of shape {shape}, got {vectors.dtype} of shape {vectors.shape}"
            )
        index = cls(header["dim"])
        # As a plain view: each slice of an `np.memmap` takes longer than a small search.
        index._buffer = vectors.view(np.ndarray).astype(np.float16, copy=False)
        index._map = IdMap.load(folder, rows=header["rows"], mmap=mmap)
        return index


class ExactBackend:
    """Builds and loads exact indexes."""

    def build(self, request: BuildRequest) -> ExactIndex:
        """Build an index of all vectors; see `IndexBackend.build`."""
        if request.device != "cpu":
            raise RecipeError(
                f"{request.recipe.name} cannot be built for device {request.device} from {request.rows:,} vectors; "
                "use gpu-flat, or device cpu"
            )
        index = ExactIndex(request.dim)
        request.fill(index)
        return index

    def load(self, folder: Path, *, mmap: bool = True) -> ExactIndex:
        """Load an index; see `IndexBackend.load`."""
        return ExactIndex.load(folder, mmap=mmap)
