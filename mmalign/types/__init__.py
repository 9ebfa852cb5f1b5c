"""Small frozen value types that the rooms exchange."""

from mmalign.types.captions import Caption, CaptionEvidence, CaptionSpan
from mmalign.types.hits import Hit, HitRegion, SearchResult, batch_results
from mmalign.types.items import AddReport, Item, ReencodeReport, Skip, Unread
from mmalign.types.json_ready import gives_json, json_ready, json_ready_dict
from mmalign.types.notes import Note
from mmalign.types.places import Box, Phrase, Region, Relation

__all__ = [
    "AddReport",
    "Box",
    "Caption",
    "CaptionEvidence",
    "CaptionSpan",
    "Hit",
    "HitRegion",
    "Item",
    "Note",
    "Phrase",
    "ReencodeReport",
    "Region",
    "Relation",
    "SearchResult",
    "Skip",
    "Unread",
    "batch_results",
    "gives_json",
    "json_ready",
    "json_ready_dict",
]
