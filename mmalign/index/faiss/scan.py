"""Exact search in the vectors that a FAISS index holds, whatever its design, over all rows or over allowed ones.

A graph and a refinement keep the vectors themselves beside what they search with. To compare the query with those takes
no read of the collection, and costs the same whatever a filter has to do with the query. Functions here take the
`faiss` module as an argument, so that importing this file does not import FAISS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.index.faiss import structure as anatomy
from mmalign.index.faiss.library import load_faiss
from mmalign.utils import Float32Array, Int64Array

# Below one allowed row in so many, the codes of the allowed ones are copied and scanned by themselves: FAISS tests
# every row against a selector, which takes about a third of comparing with it.
_GATHER_ONE_IN = 8
# Codes that are copied at once, in bytes.
_GATHER_BYTES = 1 << 26


def held_vectors(index: Any) -> Any | None:
    """Return the part of an index that compares with every vector and tells true inner products.

    Args:
        index: An index without an id map around it.

    Returns:
        The index itself, its storage, its refinement, or the index of its lists, whichever does; None where none does.
    """
    faiss = load_faiss()
    built = anatomy.index_structure(index)
    if built.exhaustive and not built.wrappers:
        return faiss.downcast_index(index)
    held = anatomy.scannable(index)
    if held is not None:
        return held if anatomy.index_structure(held).exhaustive else None
    if built.core == "ivf" and not built.wrappers and built.exact_scores:
        layer = faiss.downcast_index(index)
        # Any other way to the lists may miss some of them.
        return layer if isinstance(faiss.downcast_index(layer.quantizer), faiss.IndexFlat) else None
    return None


def scan(held: Any, queries: Float32Array, k: int, mask: NDArray[np.bool_] | None) -> tuple[Float32Array, Int64Array]:
    """Compare with every allowed vector.

    Args:
        held: What `held_vectors` gave.
        queries: Shape (q, dim), float32.
        k: How many, at least 1 and at most the number of allowed rows.
        mask: Which rows are allowed, bool of shape (rows,); None for all.

    Returns:
        `(scores, positions)`: float32 and int64 of shape (q, k), best first.
    """
    faiss = load_faiss()
    if mask is None:
        found = held.search(queries, k, params=_parameters(held, None))
    elif isinstance(held, faiss.IndexFlatCodes) and np.count_nonzero(mask) * _GATHER_ONE_IN <= len(mask):
        found = _scan_few(held, queries, k, np.flatnonzero(mask))
    else:
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        found = held.search(queries, k, params=_parameters(held, selector))
    scores: Float32Array = found[0]
    positions: Int64Array = found[1]
    return scores, positions


def _parameters(held: Any, selector: Any | None) -> Any | None:
    faiss = load_faiss()
    if isinstance(held, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=held.nlist, sel=selector)
    return None if selector is None else faiss.SearchParameters(sel=selector)


def _scan_few(held: Any, queries: Float32Array, k: int, rows: Int64Array) -> tuple[Float32Array, Int64Array]:
    """Copy the codes of some rows and scan the copy."""
    faiss = load_faiss()
    size = held.code_size
    codes = faiss.rev_swig_ptr(held.codes.data(), held.ntotal * size).reshape(held.ntotal, size)
    copy = _empty_like(held)
    step = max(1, _GATHER_BYTES // size)
    parts = []
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        copy.reset()
        copy.add_sa_codes(np.ascontiguousarray(codes[some]))
        scores, order = copy.search(queries, min(k, len(some)))
        parts.append((scores, some[order]))
    scores = np.concatenate([part[0] for part in parts], axis=1)
    positions = np.concatenate([part[1] for part in parts], axis=1)
    if len(parts) > 1:
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, positions = np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)
    return scores, positions


def _empty_like(held: Any) -> Any:
    faiss = load_faiss()
    if isinstance(held, faiss.IndexScalarQuantizer):
        return faiss.IndexScalarQuantizer(held.d, held.sq.qtype, held.metric_type)
    return faiss.IndexFlat(held.d, held.metric_type)
