"""The demonstration: a collection of the gallery that comes with mmalign, and some searches in it."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from mmalign.cli.contact_sheet import write_contact_sheet
from mmalign.collection import Collection
from mmalign.types import SearchResult

QUERIES = (
    "a photographer with a camera",
    "a red car",
    "a bird flying",
    "musical instrument",
    "flowers",
    "something to eat",
)


def run_demo(output: Path, *, encoder: str = "lite", progress: bool = True) -> tuple[list[SearchResult], list[Path]]:
    """Index the gallery, search it, and write contact sheets.

    Args:
        output: Folder for the collection `gallery.mm` and the sheets `hits.png` and `hits.html`.
        encoder: Spec of the encoder.
        progress: Whether to show progress bars.

    Returns:
        `(results, sheets)`: one result a query, and the paths of the sheets.
    """
    path = output / "gallery.mm"
    with as_file(files("mmalign.gallery")) as gallery:
        collection = Collection.open_or_create(path, encoder=encoder)
        collection.add(gallery / "manifest.jsonl", progress=progress)
        results = collection.search(list(QUERIES), k=5)
        sheets = [write_contact_sheet(results, output / name) for name in ("hits.png", "hits.html")]
    return results, sheets
