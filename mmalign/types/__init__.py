"""Small frozen value types that the rooms exchange."""

from mmalign.types.hits import Hit, HitRegion, SearchResult, batch_results, late_hits
from mmalign.types.items import AddReport, Item, ReencodeReport, Skip
from mmalign.types.places import Box, Phrase, Region, Relation

__all__ = [
    "AddReport",
    "Box",
    "Hit",
    "HitRegion",
    "Item",
    "Phrase",
    "ReencodeReport",
    "Region",
    "Relation",
    "SearchResult",
    "Skip",
    "batch_results",
    "late_hits",
]
