"""How many bytes an index takes, worked out from its FAISS factory string alone.

FAISS writes an index much as it holds it, so that one formula tells both what lies on disk and what lies in memory.
What each part takes follows from FAISS's own sources: codes (scalar quantizer, product quantizer, RaBitQ), links of a
graph (HNSW: 2M links at the lowest level and M at each of the others, of which there are 1 / (M - 1) a vector), ids of
inverted lists, and blocks of 32 codes where they are scanned by SIMD (`fs`), filled up with empty ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mmalign.errors import RecipeError

EXACT = "exact"
_ID = 8
# Codes for fast scans are laid out in blocks; a list's last block is half empty on average.
_BLOCK = 32
_SCALAR_BITS = {"SQ4": 4, "SQ6": 6, "SQ8": 8, "SQfp16": 16, "SQbf16": 16}
_CODE = re.compile(
    r"(?P<flat>Flat)|(?P<scalar>SQ(?:4|6|8|fp16|bf16))|PQ(?P<m>\d+)(?:x(?P<bits>\d+))?(?P<kind>fsr?|np)?"
    r"|RaBitQ(?P<fast>fs)?(?P<more>\d)?"
)
_TRANSFORM = re.compile(r"(?P<kind>PCAWR?|PCAR|PCA|OPQ|RR|ITQ|L2norm)(?P<first>\d+)?(?:_(?P<second>\d+))?")
_LISTS = re.compile(r"IVF(?P<lists>\d+)(?:_HNSW(?P<graph>\d+)?)?")
_GRAPH = re.compile(r"HNSW(?P<graph>\d+)?(?:_(?P<code>\w+))?")
_REFINE = re.compile(r"Refine\((?P<code>\w+)\)|(?P<flat>RFlat)")
# Transforms and codes whose size is known; named where a string cannot be estimated.
_KNOWN = "exact, PCA, OPQ, RR, L2norm, IVF, HNSW, Flat, SQ, PQ, RaBitQ, RFlat and Refine(...)"


@dataclass(frozen=True, slots=True)
class Code:
    """What is kept of each vector.

    Attributes:
        kind: `Flat`, `SQ8`, `PQ`, `PQfs`, `RaBitQ`, `RaBitQfs` and the like; the same for all widths.
        width: Width of the vectors that are coded.
        size: Bytes a vector.
        shared: Bytes for all vectors together: codebooks and ranges.
        centroids: Vectors that training finds, 0 where it finds none.
    """

    kind: str
    width: int
    size: int
    shared: int = 0
    centroids: int = 0

    @property
    def fast(self) -> bool:
        """Whether codes are laid out in blocks for SIMD."""
        return self.kind.endswith("fs")


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """The parts of an index.

    Attributes:
        factory: The factory string.
        dim: Width of the vectors.
        code: What is searched.
        refine: What candidates are compared again with, or None.
        lists: Number of inverted lists, 0 where there are none.
        graph: Links of a vector of the graph, 0 where there is none.
        coarse_graph: Links of a centroid, where lists are found by a graph.
        transform: Which transform comes first, or an empty text.
        shared: Bytes of transform and centroids.
        maps_ids: Whether FAISS maps ids too.
    """

    factory: str
    dim: int
    code: Code
    refine: Code | None = None
    lists: int = 0
    graph: int = 0
    coarse_graph: int = 0
    transform: str = ""
    shared: int = 0
    maps_ids: bool = False

    def searched(self, rows: int) -> float:
        """Bytes that every search goes through: codes, links, ids in lists, centroids and codebooks.

        Args:
            rows: How many vectors.
        """
        padded = rows + (_BLOCK // 2) * max(1, self.lists) * self.code.fast
        own = padded * self.code.size + rows * _links(self.graph) + rows * _ID * (self.lists > 0)
        return own + rows * _ID * self.maps_ids + self.shared + self.code.shared

    def refined(self, rows: int) -> float:
        """Bytes of which a search reads a few candidates alone: they may stay on disk.

        Args:
            rows: How many vectors.
        """
        return 0.0 if self.refine is None else rows * self.refine.size + self.refine.shared

    def size(self, rows: int) -> float:
        """Bytes of the whole index on disk, with the id of each position.

        Args:
            rows: How many vectors.
        """
        return self.searched(rows) + self.refined(rows) + rows * _ID

    @property
    def centroids(self) -> int:
        """The largest number of centroids that any part is trained to find; 0 where nothing is trained."""
        own = int(self.transform in ("PCA", "OPQ", "ITQ"))
        return max(self.lists, self.code.centroids, self.refine.centroids if self.refine else 0, own)


def size_of(factory: str, dim: int) -> IndexLayout:
    """Read a factory string.

    Args:
        factory: `exact`, or a FAISS factory string without placeholders.
        dim: Width of the vectors.

    Returns:
        The parts.

    Raises:
        RecipeError: It holds a part whose size is not known here.

    Example:
        >>> lay_out("HNSW32,SQfp16", 384).code.size
        768
    """
    if factory == EXACT:
        return IndexLayout(factory, dim, Code(EXACT, dim, 2 * dim))
    width, shared, lists, graph, coarse, transform = dim, 0, 0, 0, 0, ""
    code: Code | None = None
    refine: Code | None = None
    parts = factory.split(",")
    maps_ids = parts[0] in ("IDMap", "IDMap2")
    for part in parts[maps_ids:]:
        if found := _REFINE.fullmatch(part):
            refine = _code("Flat" if found["flat"] else found["code"], dim, factory)
        elif code is None and (found := _GRAPH.fullmatch(part)):
            graph = int(found["graph"] or 32)
            # A code may follow after a comma too; without any, vectors stay as they are.
            code = _code(found["code"], width, factory) if found["code"] else None
        elif code is None and (found := _LISTS.fullmatch(part)):
            lists, coarse = int(found["lists"]), int(found["graph"] or 32) if "HNSW" in part else 0
            shared += int(lists * (4 * width + 8 + _links(coarse) * (coarse > 0)))
        elif code is None and _CODE.fullmatch(part):
            code = _code(part, width, factory, lists=lists)
        elif code is None and not lists and not graph and (found := _TRANSFORM.fullmatch(part)):
            kind = "PCA" if found["kind"].startswith("PCA") else found["kind"]
            out = int(found["second"] or width) if kind == "OPQ" else int(found["first"] or width)
            shared += _transform_bytes(kind, width, out)
            width, transform = out, transform or kind
        else:
            raise RecipeError(
                f"the size of factory string {factory!r} cannot be worked out because of {part!r}; known are {_KNOWN}"
            )
    if code is None and graph:
        code = _code("Flat", width, factory)
    if code is None:
        raise RecipeError(f"factory string {factory!r} does not say what is kept of a vector; end it with Flat or SQ8")
    return IndexLayout(factory, dim, code, refine, lists, graph, coarse, transform, shared, maps_ids)


def _code(text: str, width: int, factory: str, *, lists: int = 0) -> Code:
    found = _CODE.fullmatch(text)
    if not found:
        raise RecipeError(f"the size of {text!r} in factory string {factory!r} is not known here; known are {_KNOWN}")
    if found["flat"]:
        return Code("Flat", width, 4 * width)
    if kind := found["scalar"]:
        bits = _SCALAR_BITS[kind]
        # The range of each dimension is learned, but for halves of a float.
        return Code(kind, width, math.ceil(width * bits / 8), 0 if bits == 16 else 8 * width, int(bits < 16))
    if found["m"]:
        m, bits = int(found["m"]), int(found["bits"] or 8)
        fast = (found["kind"] or "").startswith("fs")
        size = math.ceil((m + m % 2) * bits / 8) if fast else math.ceil(m * bits / 8)
        return Code("PQfs" if fast else "PQ", width, size, 4 * width << bits, 1 << bits)
    more = int(found["more"] or 1) - 1
    # A bit a dimension and two factors; with more bits, their own codes and three factors more.
    size = math.ceil(width / 8) + (8 if not more else 20 + math.ceil(width * more / 8))
    # Without lists there is one centre, which is learned.
    return Code("RaBitQfs" if found["fast"] else "RaBitQ", width, size, 0 if lists else 4 * width, int(not lists))


def _transform_bytes(kind: str, width: int, out: int) -> int:
    if kind == "L2norm":
        return 0
    matrix = 4 * width * out
    # A PCA keeps its mean, its eigenvalues and all its directions beside the matrix that it applies.
    return matrix + 4 * out + 8 * width + 4 * width * width if kind == "PCA" else matrix


def _links(graph: int) -> float:
    """Bytes of a vector's links, its level and where they begin."""
    return 4 * (2 * graph + graph / (graph - 1)) + 8 + 4 if graph > 1 else 0.0
