"""A FAISS file, as `faiss.write_index` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import FilterError, InputError
from mmalign.evaluation.index_audit.target import (
    AuditTarget,
    Keys,
    RowFilter,
    SearchMode,
    draw_keys,
    ladder,
    with_default,
)
from mmalign.evaluation.index_audit.targets.opening import Place
from mmalign.index import check_faiss, load_faiss, read_faiss
from mmalign.utils import Float32Array, Int64Array

_MOST_EF = 4_096
_K_FACTORS = (4.0, 16.0)


class FaissTarget(AuditTarget):
    """A FAISS file: flat, inverted lists, HNSW, NSG, with refinement, transforms and ids of one's own around them.

    Args:
        source: The file.
        place: Its metric counts where vectors are of length 1 and compared by inner product, which then is cosine.

    Raises:
        InputError: An index of bits, or by a metric other than inner product or L2.
        IndexFileError: It cannot be read.
    """

    engine = "faiss"

    def __init__(self, source: str, place: Place) -> None:
        super().__init__()
        self.version = check_faiss().rpartition(" ")[2]
        faiss = load_faiss()
        whole = read_faiss(Path(source), mmap=False)
        if not isinstance(whole, faiss.Index):
            raise InputError(f"{source} is an index of bits; an audit measures those of floats")
        metrics = {faiss.METRIC_INNER_PRODUCT: "ip", faiss.METRIC_L2: "l2"}
        if whole.metric_type not in metrics:
            raise InputError(f"{source} goes by FAISS metric {whole.metric_type}; an audit knows inner product and L2")
        # The layers inside live as long as what holds them.
        self._whole = whole
        self._ids: Int64Array | None = None
        index = whole
        if isinstance(index, (faiss.IndexIDMap, faiss.IndexIDMap2)):
            self._ids = faiss.vector_to_array(index.id_map)
            index = faiss.downcast_index(index.index)
        self._index = index
        self._refine: Any | None = None
        self._transforms: list[Any] = []
        self._wrappers: list[str] = []
        core = index
        while isinstance(core, (faiss.IndexPreTransform, faiss.IndexRefine)):
            if isinstance(core, faiss.IndexRefine):
                self._wrappers.append("refine")
                self._refine = core
                core = faiss.downcast_index(core.base_index)
            else:
                self._wrappers.append("transform")
                self._transforms += [faiss.downcast_VectorTransform(core.chain.at(i)) for i in range(core.chain.size())]
                core = faiss.downcast_index(core.index)
        self._core = core
        self.name, self.index = source, _describe(core, self._wrappers, own_ids=self._ids is not None)
        self.rows, self.dim = int(whole.ntotal), int(whole.d)
        self.metric = "ip" if metrics[whole.metric_type] == "ip" else "l2"
        held = core if self._refine is None else faiss.downcast_index(self._refine.refine_index)
        if isinstance(held, (faiss.IndexHNSW, faiss.IndexNSG)):
            held = faiss.downcast_index(held.storage)
        self._held = held
        # Refinement may see the vectors before the transform, or after it.
        before = self._refine is not None and self._wrappers.index("refine") < len(self._wrappers) - 1
        self._untransformed = not self._transforms or before
        # FAISS crashes where it is asked for the vectors of packed codes that it has read from a file.
        self.sealed = "FastScan" in type(held).__name__
        self.lossy = not isinstance(held, (faiss.IndexFlat, faiss.IndexIVFFlat)) or not self._untransformed

    def read(self, batch: int) -> Iterator[tuple[Keys, NDArray[Any]]]:
        """Reconstruct all vectors; see `AuditTarget.read`."""
        faiss = load_faiss()
        stored = np.arange(self.rows)
        lists = isinstance(self._held, faiss.IndexIVF)
        if lists:
            stored = _stored_ids(self._held)
        if lists and not self.sealed:
            self._held.set_direct_map_type(faiss.DirectMap.Hashtable)
        for start in range(0, len(stored), batch):
            ids = stored[start : start + batch]
            if self.sealed:
                vectors = np.zeros((len(ids), self.dim), np.float32)
            else:
                vectors = self._held.reconstruct_batch(ids) if lists else self._held.reconstruct_n(start, len(ids))
            if not self._untransformed and not self.sealed:
                for transform in reversed(self._transforms):
                    vectors = transform.reverse_transform(vectors)
            yield ids if self._ids is None else self._ids[ids], vectors

    def search(
        self, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None
    ) -> Sequence[Keys] | Int64Array:
        """Search with parameters of the call; see `AuditTarget.search`."""
        nested = self._nested({**self._stored(), **parameters}, where)
        found: Int64Array = self._index.search(queries, k, params=nested)[1]
        if self._ids is not None:
            found = np.where(found < 0, -1, self._ids[found])
        return [row[row >= 0] for row in found]

    def modes(self, k: int, *, filtered: bool) -> Sequence[SearchMode]:
        """`nprobe` or `efSearch`; with a refinement, that with several k_factors; see `AuditTarget.modes`."""
        faiss = load_faiss()
        stored = self._stored()
        if isinstance(self._core, faiss.IndexIVF):
            knob, values = "nprobe", ladder(1, int(self._core.nlist))
        elif isinstance(self._core, faiss.IndexHNSW):
            knob, values = "efSearch", ladder(min(k, 16), min(_MOST_EF, max(self.rows, 1)))
        else:
            knob, values = "", (1,)
        default = int(stored.get(knob, 1))
        values = with_default(values, default)
        if self._refine is None:
            return [SearchMode(knob, values, default)]
        own = float(self._refine.k_factor)
        factors = [own, *(factor for factor in _K_FACTORS if factor != own)]
        return [SearchMode(knob, values, default, {"k_factor": factor}) for factor in factors]

    def random_filter(self, share: float, keys: Keys, rng: np.random.Generator) -> RowFilter:
        """Let rows drawn at random through, by a selector of ids; see `AuditTarget.random_filter`."""
        chosen = np.array(draw_keys(share, keys, rng), np.int64)
        inside = chosen
        if self._ids is not None:
            # The map of ids is taken off, and what is inside counts from 0.
            order = np.argsort(self._ids, kind="stable")
            inside = order[np.searchsorted(self._ids[order], chosen)]
        where = np.ascontiguousarray(inside, np.int64)
        try:
            self.search(np.zeros((1, self.dim), np.float32), 1, {}, where)
        except RuntimeError as error:
            raise FilterError(f"{self.index} cannot skip rows while it looks") from error
        return RowFilter(f"{share:.2%} at random", where, chosen)

    def _stored(self) -> dict[str, Any]:
        """What the file itself says of effort."""
        faiss = load_faiss()
        if isinstance(self._core, faiss.IndexIVF):
            return {"nprobe": int(self._core.nprobe)}
        return {"efSearch": int(self._core.hnsw.efSearch)} if isinstance(self._core, faiss.IndexHNSW) else {}

    def _nested(self, parameters: Mapping[str, Any], where: Int64Array | None) -> Any:
        """FAISS's search parameters, nested as the index is."""
        faiss = load_faiss()
        selector = None if where is None else faiss.IDSelectorBatch(where)
        nested: Any = None
        if "nprobe" in parameters:
            nested = faiss.SearchParametersIVF(nprobe=parameters["nprobe"], sel=selector)
        elif "efSearch" in parameters:
            nested = faiss.SearchParametersHNSW(efSearch=parameters["efSearch"], sel=selector)
        elif selector is not None:
            nested = faiss.SearchParameters(sel=selector)
        for wrapper in reversed(self._wrappers):
            if wrapper == "refine":
                factor = parameters.get("k_factor", self._refine.k_factor if self._refine is not None else 1.0)
                nested = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=nested)
            elif nested is not None:
                nested = faiss.SearchParametersPreTransform(index_params=nested)
        return nested


def _describe(core: Any, wrappers: Sequence[str], *, own_ids: bool) -> str:
    faiss = load_faiss()
    text = type(core).__name__
    if isinstance(core, faiss.IndexIVF):
        text += f" of {core.nlist:,} lists"
    elif isinstance(core, faiss.IndexHNSW):
        text += f", M={core.hnsw.nb_neighbors(1)}"
    names = {"refine": "refined", "transform": "behind a transform"}
    return ", ".join([text, *(names[wrapper] for wrapper in wrappers), *(["ids of its own"] if own_ids else [])])


def _stored_ids(index: Any) -> Int64Array:
    """The ids in inverted lists, list by list."""
    faiss = load_faiss()
    parts = []
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        if size:
            ids = index.invlists.get_ids(number)
            parts.append(faiss.rev_swig_ptr(ids, size).copy())
            index.invlists.release_ids(number, ids)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
