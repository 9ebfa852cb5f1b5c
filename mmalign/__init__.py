"""mmalign connects pictures and words: one store, one index and one embedding space for all that it does."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmalign.alignment import Aligner, Alignment, align
    from mmalign.captioning import Captioner, TextStore
    from mmalign.cli import write_contact_sheet
    from mmalign.collection import Collection
    from mmalign.encoders import Encoder, EncoderBase, load_encoder
    from mmalign.errors import MMAlignError
    from mmalign.evaluation import (
        audit,
        evaluate_calibration,
        evaluate_captions,
        evaluate_classes,
        evaluate_grounding,
        evaluate_pairs,
        evaluate_retrieval,
    )
    from mmalign.index import IndexManifest, register_backend
    from mmalign.search import Query
    from mmalign.types import (
        AddReport,
        Box,
        Caption,
        Hit,
        Item,
        Note,
        Phrase,
        ReencodeReport,
        Region,
        Relation,
        SearchResult,
        Skip,
        StoredItem,
    )

    __version__: str

# Loaded at first use: `import mmalign` takes milliseconds and imports no other package.
_HOMES = {
    "AddReport": "mmalign.types",
    "Aligner": "mmalign.alignment",
    "Alignment": "mmalign.alignment",
    "Box": "mmalign.types",
    "Caption": "mmalign.types",
    "Captioner": "mmalign.captioning",
    "Collection": "mmalign.collection",
    "Encoder": "mmalign.encoders",
    "EncoderBase": "mmalign.encoders",
    "Hit": "mmalign.types",
    "IndexManifest": "mmalign.index",
    "Item": "mmalign.types",
    "MMAlignError": "mmalign.errors",
    "Note": "mmalign.types",
    "Phrase": "mmalign.types",
    "Query": "mmalign.search",
    "ReencodeReport": "mmalign.types",
    "Region": "mmalign.types",
    "Relation": "mmalign.types",
    "SearchResult": "mmalign.types",
    "Skip": "mmalign.types",
    "StoredItem": "mmalign.types",
    "TextStore": "mmalign.captioning",
    "align": "mmalign.alignment",
    "audit": "mmalign.evaluation",
    "evaluate_calibration": "mmalign.evaluation",
    "evaluate_captions": "mmalign.evaluation",
    "evaluate_classes": "mmalign.evaluation",
    "evaluate_grounding": "mmalign.evaluation",
    "evaluate_pairs": "mmalign.evaluation",
    "evaluate_retrieval": "mmalign.evaluation",
    "load_encoder": "mmalign.encoders",
    "register_backend": "mmalign.index",
    "write_contact_sheet": "mmalign.cli",
}

__all__ = [
    "AddReport",
    "Aligner",
    "Alignment",
    "Box",
    "Caption",
    "Captioner",
    "Collection",
    "Encoder",
    "EncoderBase",
    "Hit",
    "IndexManifest",
    "Item",
    "MMAlignError",
    "Note",
    "Phrase",
    "Query",
    "ReencodeReport",
    "Region",
    "Relation",
    "SearchResult",
    "Skip",
    "StoredItem",
    "TextStore",
    "__version__",
    "align",
    "audit",
    "evaluate_calibration",
    "evaluate_captions",
    "evaluate_classes",
    "evaluate_grounding",
    "evaluate_pairs",
    "evaluate_retrieval",
    "load_encoder",
    "register_backend",
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
