"""What `mmalign bench index` measures on: the vectors of a collection or of a file, and the queries to ask them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import encode_query
from mmalign.errors import InputError, SourceError
from mmalign.utils import Float32Array, Int64Array, as_matrix, l2_normalize

if TYPE_CHECKING:
    from mmalign.collection import Collection

VectorChunk = tuple[Int64Array, NDArray[Any]]
_CHUNK = 65_536
_SUFFIXES = (".npy", ".npz", ".parquet")
# Queries taken out of the vectors are never more than this share of them.
_HELD_SHARE = 0.1
# So many further queries are for designs that learn from queries.
_SAMPLE = 1_000


@dataclass(frozen=True, slots=True)
class BenchSource:
    """Vectors and queries to measure with.

    Attributes:
        name: What they are, in words.
        rows: How many vectors, those that became queries left out.
        dim: Their width.
        chunks: Called for each pass; yields `(ids, vectors)`, int64 of shape (n,) and float of shape (n, dim), rows of
            length 1 but in a collection of metric `ip`.
        queries: Shape (q, dim), float32, rows of length 1.
        kind: `given`, `captions` or `held-out vectors`.
        digest: Of vectors and queries: 16 hex digits.
        sample: Further queries, for designs that learn from those that will be asked, shape (s, dim), rows of length
            1; None where there are none.
        unit_length: Whether the vectors are of length 1.
    """

    name: str
    rows: int
    dim: int
    chunks: Callable[[], Iterable[VectorChunk]]
    queries: Float32Array
    kind: str
    digest: str
    sample: Float32Array | None = None
    unit_length: bool = True


def open_bench_source(path: Path, *, queries: Path | None = None, count: int = 1_000, seed: int = 0) -> BenchSource:
    """Open what is to be measured on.

    Args:
        path: A collection, or a file of vectors: `.npy` of shape (n, dim), `.npz` that holds one such array, or
            `.parquet` with one column of lists of numbers.
        queries: A file of vectors to ask with; None for captions of the collection where it has some, else for
            vectors that are taken out.
        count: How many queries at most, drawn at random where there are more; up to 1,000 of the others of a file
            are for designs that learn from queries.
        seed: Of the draw.

    Returns:
        The source.

    Raises:
        SourceError: There is no such file, or it holds no vectors.
        DimensionError: Queries and vectors differ in width.
        InputError: NaN, infinity or rows of zeros, or too few vectors to take queries out.
    """
    if count < 1:
        raise InputError(f"the number of queries must be at least 1, got {count}")
    collection = None if path.suffix in _SUFFIXES else _open_collection(path)
    every = _file_chunks(path) if collection is None else collection.snapshot().iter_embeddings
    rows, dim, content = _look(every, str(path))
    rng = np.random.default_rng(seed)
    chosen: Float32Array | None
    sample: Float32Array | None = None
    if queries is not None:
        chosen, kind = _unit(np.concatenate([part for _, part in _file_chunks(queries)()]), dim, str(queries)), "given"
        if len(chosen) > count:
            order = rng.permutation(len(chosen))
            sample = chosen[np.sort(order[count : count + _SAMPLE])]
            chosen = chosen[np.sort(order[:count])]
    else:
        chosen, kind = (None if collection is None else _captions(collection, count, rng)), "captions"
    out = np.zeros(0, np.int64)
    if chosen is None:
        out = np.sort(rng.choice(rows, min(count, max(1, int(_HELD_SHARE * rows))), replace=False))
        chosen, kind = _rows_at(every, out, dim), "held-out vectors"
        if len(out) == rows:
            raise InputError(f"{path}: {rows} vectors are too few to take queries out; give some with --queries")
    content.update(chosen.tobytes())
    name = f"{path.name}: {rows - len(out):,} vectors of dim {dim}, {len(chosen):,} queries ({kind})"
    chunks = lambda: _without(every, out)  # noqa: E731
    unit_length = collection is None or collection.description.unit_length
    return BenchSource(name, rows - len(out), dim, chunks, chosen, kind, content.hexdigest()[:16], sample, unit_length)


def _open_collection(path: Path) -> Collection:
    from mmalign.collection import Collection

    if not path.is_dir():
        raise SourceError(f"{path} is neither a collection nor a file of vectors; those end in {', '.join(_SUFFIXES)}")
    return Collection.open(path)


def _captions(collection: Collection, count: int, rng: np.random.Generator) -> Float32Array | None:
    if collection.description.encoder is None:
        return None
    _, table = collection.snapshot().scan(["captions"], also="captions IS NOT NULL")
    texts = [text for own in table.column("captions").to_pylist() for text in own]
    if not texts:
        return None
    chosen = np.sort(rng.choice(len(texts), min(count, len(texts)), replace=False))
    return l2_normalize(encode_query(collection.encoder, [texts[i] for i in chosen]))


def _file_chunks(path: Path) -> Callable[[], Iterable[VectorChunk]]:
    """Read a file of vectors piece by piece, as unit rows numbered from 0."""
    read = read_parquet if path.suffix == ".parquet" else read_array

    def chunks() -> Iterator[VectorChunk]:
        start = 0
        for part in read(path):
            yield np.arange(start, start + len(part)), _unit(part, None, str(path))
            start += len(part)

    if not path.is_file() or path.suffix not in _SUFFIXES:
        raise SourceError(f"no file of vectors at {path}; its name ends in {', '.join(_SUFFIXES)}")
    return chunks


def read_array(path: Path) -> Iterator[NDArray[Any]]:
    """Read a `.npy` or `.npz` file of vectors piece by piece, as they are.

    Args:
        path: The file.

    Yields:
        Floats of shape (n, dim).

    Raises:
        SourceError: It cannot be read, or holds no vectors.
    """
    try:
        held = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
        if path.suffix == ".npz":
            arrays = [held[name] for name in held.files]
            arrays = [array for array in arrays if array.ndim == 2]
            if len(arrays) != 1:
                raise SourceError(f"{path} holds {len(arrays)} arrays of shape (n, dim), expected one")
            held = arrays[0]
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read as an array: {error}") from error
    if held.ndim != 2 or held.dtype.kind != "f":
        raise SourceError(f"{path}: expected floats of shape (n, dim), got {held.dtype} of shape {held.shape}")
    for start in range(0, len(held), _CHUNK):
        yield held[start : start + _CHUNK]


def read_parquet(path: Path) -> Iterator[NDArray[Any]]:
    """Read a `.parquet` file with one column of lists of floats; see `read_array`."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
        names = [
            field.name
            for field in file.schema_arrow
            if (
                pa.types.is_list(field.type)
                or pa.types.is_large_list(field.type)
                or pa.types.is_fixed_size_list(field.type)
            )
            and pa.types.is_floating(field.type.value_type)
        ]
        if len(names) != 1:
            raise SourceError(f"{path} has {len(names)} columns of lists of floats, expected one: {', '.join(names)}")
        for batch in file.iter_batches(batch_size=_CHUNK, columns=names):
            column = batch.column(0)
            flat = column.flatten().to_numpy(zero_copy_only=False)
            if column.null_count or not len(column) or len(flat) % len(column):
                raise SourceError(f"{path}: column {names[0]!r} must hold lists of one length, without nulls")
            widths = set(pa.compute.list_value_length(column).unique().to_pylist())
            if len(widths) != 1:
                raise SourceError(f"{path}: column {names[0]!r} holds lists of different lengths")
            yield flat.reshape(len(column), -1)
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path} cannot be read as Parquet: {error}") from error


def _unit(vectors: NDArray[Any], dim: int | None, name: str) -> Float32Array:
    matrix = l2_normalize(as_matrix(vectors, dim=dim, name=name))
    zero = np.flatnonzero(~matrix.any(axis=1))
    if zero.size:
        raise InputError(f"{name}: {zero.size} of {len(matrix)} rows are all zeros, the first is row {zero[0]}")
    return matrix


def _look(chunks: Callable[[], Iterable[VectorChunk]], name: str) -> tuple[int, int, hashlib._Hash]:
    """Number of rows, width, and a digest of all of them."""
    rows = dim = 0
    content = hashlib.sha256()
    for _, vectors in chunks():
        rows, dim = rows + len(vectors), vectors.shape[1]
        content.update(np.ascontiguousarray(vectors, dtype=np.float16).tobytes())
    if not rows:
        raise SourceError(f"{name} holds no vectors")
    return rows, dim, content


def _rows_at(chunks: Callable[[], Iterable[VectorChunk]], positions: Int64Array, dim: int) -> Float32Array:
    found = np.empty((len(positions), dim), np.float32)
    start = filled = 0
    for _, vectors in chunks():
        stop = int(np.searchsorted(positions, start + len(vectors)))
        found[filled:stop] = vectors[positions[filled:stop] - start]
        start, filled = start + len(vectors), stop
    return l2_normalize(found)


def _without(chunks: Callable[[], Iterable[VectorChunk]], positions: Int64Array) -> Iterator[VectorChunk]:
    start = 0
    for ids, vectors in chunks():
        if len(positions):
            keep = ~np.isin(np.arange(start, start + len(ids)), positions)
            start += len(ids)
            ids, vectors = ids[keep], vectors[keep]
        yield ids, vectors
