"""What a database is asked: the caller's own queries, and some made from what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.encoders import encode_query, load_encoder
from mmalign.errors import DimensionError, InputError, SourceError
from mmalign.evaluation.index_audit.spool import Spool, read_vectors
from mmalign.evaluation.index_audit.target import Metric
from mmalign.index import QuerySet, exact_truth
from mmalign.utils import Float32Array, as_matrix, l2_normalize

MADE = "near"
"""The kind of the queries that are made from the data."""
_NEIGHBOURS = 64
# Copies lie at distance 0 of one another; queries are moved at least this share of the distance of any two rows.
_LEAST_MOVE = 0.15


def given_queries(
    files: Mapping[str, Any], *, encoder: Any, dim: int, count: int, rng: np.random.Generator
) -> dict[str, QuerySet]:
    """Read the caller's queries.

    Args:
        files: By kind: a file of vectors (`.npy`, `.npz`, `.parquet`), a text file with a query a line, or vectors of
            shape (q, dim).
        encoder: Name of the encoder of the texts, or an encoder; None where there are no texts.
        dim: Width of the vectors of the database.
        count: How many of a kind at most, drawn at random.
        rng: What to draw with.

    Returns:
        The queries by kind.

    Raises:
        SourceError: A file that cannot be read.
        InputError: Texts without an encoder, or fewer than two queries of a kind.
        DimensionError: Vectors of another width.
    """
    asked = {}
    loaded: Any = None
    for kind, given in files.items():
        if kind == MADE:
            raise InputError(f"{MADE!r} is the name of the queries that are made from the data; name yours otherwise")
        if isinstance(given, str | Path):
            path = Path(given)
            if path.suffix in (".npy", ".npz", ".parquet"):
                vectors = np.concatenate([np.asarray(part, np.float32) for part in read_vectors(path)])
                vectors = _chosen(as_matrix(vectors, name=str(path)), count, rng)
            else:
                texts = _lines(path)
                texts = [texts[i] for i in np.sort(rng.permutation(len(texts))[:count])]
                loaded = loaded or _loaded(encoder, path)
                vectors = encode_query(loaded, texts)
        else:
            vectors = _chosen(as_matrix(given, name=f"{kind} queries"), count, rng)
        if vectors.shape[1] != dim:
            raise DimensionError(
                f"{kind} queries have width {vectors.shape[1]}, the vectors of the database {dim}; queries have to "
                "come from the encoder that made the vectors (--encoder for texts)"
            )
        if len(vectors) < 2:
            raise InputError(f"recall needs at least 2 {kind} queries, better 400, got {len(vectors)}")
        asked[kind] = QuerySet(vectors)
    return asked


def _chosen(vectors: Float32Array, count: int, rng: np.random.Generator) -> Float32Array:
    return vectors[np.sort(rng.permutation(len(vectors))[:count])]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} cannot be read: {error}; queries are a text file with one a line, or vectors in .npy, .npz or "
            ".parquet"
        ) from error
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise SourceError(f"{path} holds no queries; a text file has one a line")
    return texts


def _loaded(encoder: Any, path: Path) -> Any:
    if encoder is None:
        raise InputError(f"{path} holds texts; name the encoder that made the vectors of the database: --encoder SPEC")
    return load_encoder(encoder) if isinstance(encoder, str) else encoder


def made_queries(vectors: Spool, metric: Metric, *, count: int, rng: np.random.Generator) -> QuerySet:
    """Make queries from the data that are not in it.

    Rows drawn at random, each moved towards another one until it is as far from where it was as rows are from their
    nearest neighbours, so that it stands for another thing of the like; the row itself is not looked for. An exact copy
    of a row as a query would be too easy: its nearest neighbour is where every search begins.

    Args:
        vectors: All that is in the database.
        metric: By what it searches.
        count: How many, at most half the rows.
        rng: What to draw with.

    Returns:
        The queries, each with the position of the row that it was made from; none where there are too few rows.
    """
    rows = len(vectors)
    own = np.sort(rng.choice(rows, min(count, rows // 2), replace=False))
    if len(own) < 2:
        return QuerySet(np.zeros((0, vectors.at(own).shape[1]), np.float32), own)
    begun, others = vectors.at(own), vectors.at(rng.choice(rows, len(own)))
    if metric == "cosine":
        begun, others = l2_normalize(begun), l2_normalize(others)
    apart = others - begun
    distance = np.linalg.norm(apart, axis=1, keepdims=True)
    move = max(
        _nearest(vectors, begun[:_NEIGHBOURS], own[:_NEIGHBOURS], metric), _LEAST_MOVE * float(np.median(distance))
    )
    moved = begun + move * np.divide(apart, distance, out=np.zeros_like(apart), where=distance > 0)
    return QuerySet(l2_normalize(moved) if metric == "cosine" else np.ascontiguousarray(moved, np.float32), own)


def _nearest(vectors: Spool, some: Float32Array, own: Any, metric: Metric) -> float:
    """How far a row is from its nearest neighbour, the median of some."""
    from mmalign.evaluation.index_audit.spaces import look

    space, _ = look("cosine" if metric == "cosine" else "l2", lambda: (part for _, part in vectors.chunks()), some)
    chunks = lambda: ((ids, space.vectors(part)) for ids, part in vectors.chunks())  # noqa: E731
    best = exact_truth(space.queries(some), chunks, 1, skip=own).ids[:, 0]
    near = vectors.at(best)
    near = l2_normalize(near) if metric == "cosine" else near
    return float(np.median(np.linalg.norm(some - near, axis=1)))
