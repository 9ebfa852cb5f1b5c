"""The demonstration: search, alignment and captions with the gallery that comes with mmalign, and a page of it all."""

from __future__ import annotations

import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.cli.contact_sheet import write_contact_sheet
from mmalign.cli.demo_results import COMPOSED, DemoAlignment, DemoCaption, Demonstration
from mmalign.cli.output import say
from mmalign.collection import Collection
from mmalign.errors import EncoderMismatchError
from mmalign.media import decode_image
from mmalign.search import Query
from mmalign.types import Caption

if TYPE_CHECKING:
    from mmalign.encoders import Encoder

QUERIES = (
    "a photographer with a camera",
    "a red car",
    "a bird flying",
    "musical instrument",
    "flowers",
    "something to eat",
)
SENTENCES = (
    ("astronaut-photo.jpg", "a smiling woman in an orange suit left of a white rocket"),
    ("cameraman-photo.jpg", "a man in a dark coat with a camera on a tripod"),
)
CAPTIONED = ("doctor.png", "cat-photo.jpg", "violin.png")
_HITS = 5


def run_demo(
    output: Path, *, encoder: str | Encoder = "lite", progress: bool = True
) -> tuple[Demonstration, list[Path]]:
    """Index the gallery, search it, align and caption some of its pictures, and write what was found.

    Args:
        output: Folder for the collection `gallery.mm`, the page `demo.html` and the contact sheet `hits.png`.
        encoder: The encoder, or its spec.
        progress: Whether to say what is done, and to show progress bars.

    Returns:
        `(found, written)`: what was found, and the paths of page and sheet.
    """
    # Late: the page is of no use to who only wants the names above.
    from mmalign.cli.demo_page import demo_page

    seconds: dict[str, float] = {}
    steps = (
        "reading the gallery",
        "searching",
        "looking for words in pictures",
        "writing captions",
        "writing the page",
    )

    def began(number: int) -> float:
        if progress:
            say(f"{number} of {len(steps)}: {steps[number - 1]}")
        return time.perf_counter()

    with as_file(files("mmalign.gallery")) as gallery:
        pictures = gallery / "images"
        start = began(1)
        collection = Collection.open_or_create(output / "gallery.mm", encoder=encoder)
        collection.add(gallery / "manifest.jsonl", progress=progress)
        seconds["index"] = time.perf_counter() - start
        start = began(2)
        results = collection.search(list(QUERIES), k=_HITS)
        composed = collection.search(Query.picture(pictures / COMPOSED[0]) + Query.words(COMPOSED[1]), k=_HITS)
        seconds["search"] = time.perf_counter() - start
        start = began(3)
        aligned = _align(collection, pictures)
        seconds["align"] = time.perf_counter() - start
        start = began(4)
        captioned = tuple(
            DemoCaption(str(pictures / name), _caption(collection, pictures / name)) for name in CAPTIONED
        )
        seconds["caption"] = time.perf_counter() - start
        began(5)
        found = Demonstration(collection, tuple(results), composed, aligned, captioned, seconds)
        page = output / "demo.html"
        page.write_bytes(demo_page(found))
        return found, [page, write_contact_sheet(results, output / "hits.png")]


def _align(collection: Collection, pictures: Path) -> tuple[DemoAlignment, ...]:
    from mmalign.alignment import Aligner

    # One for all: it keeps the models.
    aligner = Aligner(collection.encoder)
    found = []
    for name, sentence in SENTENCES:
        picture = decode_image(str(pictures / name)).image
        found.append(DemoAlignment(str(pictures / name), picture, aligner.align(picture, sentence)))
    return tuple(found)


def _caption(collection: Collection, picture: Path) -> Caption:
    try:
        return collection.caption(picture, ground=True)
    except EncoderMismatchError:
        # The decoder that comes with mmalign reads `lite`; the retrieved captions can do without one.
        return collection.caption(picture, ground=True, mode="consensus")
