"""Small frozen value types that the rooms exchange."""

from mmalign.types.arguments import (
    as_list,
    as_path,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_share,
    check_text,
    check_type,
    describe,
)
from mmalign.types.captions import Caption, CaptionEvidence, CaptionSpan
from mmalign.types.fields import field_values
from mmalign.types.geometry import Box, Part, Phrase, Region, Relation
from mmalign.types.hits import Hit, HitRegion, SearchResult, batch_results
from mmalign.types.html import Html, element, joined, jpeg_uri
from mmalign.types.ids import ItemCount, as_id, as_ids
from mmalign.types.items import AddReport, Item, ReencodeReport, Skip, StoredItem, Unread
from mmalign.types.json_ready import gives_json, json_ready, json_ready_dict
from mmalign.types.notebook import brief, faint, use_thumbnails
from mmalign.types.notes import Note
from mmalign.types.values import CellError, Unkept, duration, moment, plain_value, time_of_day

__all__ = [
    "AddReport",
    "Box",
    "Caption",
    "CaptionEvidence",
    "CaptionSpan",
    "CellError",
    "Hit",
    "HitRegion",
    "Html",
    "Item",
    "ItemCount",
    "Note",
    "Part",
    "Phrase",
    "ReencodeReport",
    "Region",
    "Relation",
    "SearchResult",
    "Skip",
    "StoredItem",
    "Unkept",
    "Unread",
    "as_id",
    "as_ids",
    "as_list",
    "as_path",
    "batch_results",
    "brief",
    "check_choice",
    "check_flag",
    "check_integer",
    "check_number",
    "check_share",
    "check_text",
    "check_type",
    "describe",
    "duration",
    "element",
    "faint",
    "field_values",
    "gives_json",
    "joined",
    "jpeg_uri",
    "json_ready",
    "json_ready_dict",
    "moment",
    "plain_value",
    "time_of_day",
    "use_thumbnails",
]
