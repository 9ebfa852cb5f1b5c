"""Small frozen value types that the rooms exchange."""

from mmalign.types.captions import Caption, CaptionEvidence, CaptionSpan
from mmalign.types.hits import Hit, HitRegion, SearchResult, batch_results
from mmalign.types.ids import ItemCount, as_id, as_ids
from mmalign.types.items import AddReport, Item, ReencodeReport, Skip, Unread
from mmalign.types.json_ready import gives_json, json_ready, json_ready_dict
from mmalign.types.notes import Note
from mmalign.types.places import Box, Phrase, Region, Relation
from mmalign.types.values import CellError, Unkept, plain_value

__all__ = [
    "AddReport",
    "Box",
    "Caption",
    "CaptionEvidence",
    "CaptionSpan",
    "CellError",
    "Hit",
    "HitRegion",
    "Item",
    "ItemCount",
    "Note",
    "Phrase",
    "ReencodeReport",
    "Region",
    "Relation",
    "SearchResult",
    "Skip",
    "Unkept",
    "Unread",
    "as_id",
    "as_ids",
    "batch_results",
    "gives_json",
    "json_ready",
    "json_ready_dict",
    "plain_value",
]
