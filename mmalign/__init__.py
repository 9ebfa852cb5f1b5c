"""mmalign connects pictures and words: one store, one index and one embedding space for all that it does."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmalign.alignment import Aligner, Alignment, align
    from mmalign.cli import write_contact_sheet
    from mmalign.collection import Collection
    from mmalign.encoders import Encoder, load_encoder
    from mmalign.errors import MMAlignError
    from mmalign.evaluation import evaluate_retrieval
    from mmalign.search import Query
    from mmalign.types import AddReport, Box, Hit, Item, Note, Phrase, Region, Relation, SearchResult, Skip, StoredItem

    __version__: str

# Loaded at first use: `import mmalign` takes milliseconds and imports no other package.
_HOMES = {
    "AddReport": "mmalign.types",
    "Aligner": "mmalign.alignment",
    "Alignment": "mmalign.alignment",
    "Box": "mmalign.types",
    "Collection": "mmalign.collection",
    "Encoder": "mmalign.encoders",
    "Hit": "mmalign.types",
    "Item": "mmalign.types",
    "MMAlignError": "mmalign.errors",
    "Note": "mmalign.types",
    "Phrase": "mmalign.types",
    "Query": "mmalign.search",
    "Region": "mmalign.types",
    "Relation": "mmalign.types",
    "SearchResult": "mmalign.types",
    "Skip": "mmalign.types",
    "StoredItem": "mmalign.types",
    "align": "mmalign.alignment",
    "evaluate_retrieval": "mmalign.evaluation",
    "load_encoder": "mmalign.encoders",
    "write_contact_sheet": "mmalign.cli",
}

__all__ = [
    "AddReport",
    "Aligner",
    "Alignment",
    "Box",
    "Collection",
    "Encoder",
    "Hit",
    "Item",
    "MMAlignError",
    "Note",
    "Phrase",
    "Query",
    "Region",
    "Relation",
    "SearchResult",
    "Skip",
    "StoredItem",
    "__version__",
    "align",
    "evaluate_retrieval",
    "load_encoder",
    "write_contact_sheet",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mmalign")
    if name not in _HOMES:
        raise AttributeError(f"module 'mmalign' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
