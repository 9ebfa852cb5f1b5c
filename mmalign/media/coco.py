"""Data sets in the form of COCO: a list of images, and annotations that name them by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmalign.errors import InputError, SourceError
from mmalign.media.locating import Locator, sibling_folders
from mmalign.media.rows import PictureCell, TableRow
from mmalign.media.uris import path_to_uri, uri_to_path
from mmalign.types import Note

_URL_KEYS = ("coco_url", "flickr_url", "url")
# The collection keeps these of the pictures themselves.
_MEASURED = frozenset({"width", "height"})
_NOT_KEPT = _MEASURED | {"id", "file_name", "image"}
_READ = frozenset({"id", "image_id", "caption", "category_id", "bbox"})


def is_coco(document: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a data set in the form of COCO.

    Args:
        document: The parsed file.

    Returns:
        True where it holds `images` with `file_name`s (or URLs), and `annotations` or `categories`.
    """
    images = document.get("images")
    if not isinstance(images, list) or not any(
        isinstance(document.get(key), list) for key in ("annotations", "categories")
    ):
        return False
    first = next((image for image in images if isinstance(image, dict)), None)
    return first is not None and "id" in first and any(key in first for key in ("file_name", *_URL_KEYS))


def coco_rows(document: Mapping[str, Any], path: Path, name: str) -> Iterator[TableRow]:
    """One row for each image: its captions, the names of its categories, and its boxes as phrases.

    The number of the image is kept as `coco_id`, boxes as `phrases`: `{"phrase": name, "box": [x, y, w, h]}` in pixels.
    A picture is looked for beside the file, in the folders that data sets keep pictures in (`images`, `val2017`, ...),
    and in those beside its folder; where none is found at all, the images' URLs are taken.

    Args:
        document: The parsed file.
        path: Where it is.
        name: What to call it in errors.

    Yields:
        Each row with its place, or the reason why it cannot be used; and notes on what is left out.

    Raises:
        SourceError: No picture is found and no image has a URL; the error names the folders that were looked into.
    """
    locator = Locator(str(path.parent), folders=True, beside=sibling_folders(path))
    places = [_place(image, locator) for image in document["images"]]
    at_urls = not any(places)
    if at_urls:
        urls = [_url(image) for image in document["images"]]
        if not any(urls):
            tried = ", ".join(map(path_to_uri, locator.tried()))
            raise SourceError(
                f"{name}: COCO annotations of {len(urls):,} images, but none of their files is there; looked in "
                f"{tried}; put the file beside the pictures, or their folder, called images, beside it"
            )
        yield Note(f"no picture is there; all are fetched from the web: {next(filter(None, urls))}, ...", about=name)
        places = urls
    for text in locator.notes():
        yield Note(text, about=name)
    captions, phrases, remarks = _annotations(document)
    measured = sorted(_MEASURED & {key for image in document["images"] if isinstance(image, dict) for key in image})
    if measured:
        remarks.append(f"{' and '.join(measured)} are left out: the collection keeps those of the pictures themselves")
    for text in remarks:
        yield Note(text, about=name)
    boxes = any(phrases.values())
    for number, (image, place) in enumerate(zip(document["images"], places, strict=True), 1):
        where = f"{name}#{number}"
        if not isinstance(image, dict) or "id" not in image:
            yield where, f"expected an image with an id, got {image!r:.60}"
            continue
        if place is None:
            yield (
                where,
                f"no file {image.get('file_name')!r} was found in {', '.join(map(path_to_uri, locator.tried()))}",
            )
            continue
        key = _key(image["id"])
        row: dict[str, Any] = {"image": PictureCell(place), "coco_id": image["id"]}
        row |= {column: value for column, value in image.items() if column not in _NOT_KEPT}
        if key in captions:
            row["captions"] = captions[key]
        if boxes:
            found = phrases.get(key, [])
            row["categories"] = list(dict.fromkeys(phrase["phrase"] for phrase in found))
            row["phrases"] = [phrase for phrase in found if "box" in phrase]
        yield where, row


def _place(image: Any, locator: Locator) -> str | None:
    """The URI of an image's file, or None where it is not there."""
    name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name.strip():
        return None
    try:
        uri = locator.uri(name)
    except InputError:
        return None
    path = uri_to_path(uri)
    return uri if path is None or locator.on_disk(str(path)) is not None else None


def _url(image: Any) -> str | None:
    if not isinstance(image, dict):
        return None
    return next((image[key] for key in _URL_KEYS if isinstance(image.get(key), str) and "://" in image[key]), None)


def _key(identity: Any) -> str:
    # Some tools write the numbers of images as text in one of the two lists.
    return str(identity)


def _annotations(
    document: Mapping[str, Any],
) -> tuple[dict[str, list[str]], dict[str, list[dict[str, Any]]], list[str]]:
    """Captions and phrases by the image's number, and remarks on what is left out."""
    entries = document.get("annotations")
    names = {
        _key(category.get("id")): str(category.get("name"))
        for category in document.get("categories") or ()
        if isinstance(category, dict)
    }
    known = {_key(image["id"]) for image in document["images"] if isinstance(image, dict) and "id" in image}
    captions: dict[str, list[str]] = {}
    phrases: dict[str, list[dict[str, Any]]] = {}
    odd: Counter[str] = Counter()
    first: dict[str, int] = {}
    unread: dict[str, None] = {}

    def count(what: str, number: int) -> None:
        odd[what] += 1
        first.setdefault(what, number)

    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict) or "image_id" not in entry:
            count("that name no image", number)
            continue
        key = _key(entry["image_id"])
        if key not in known:
            count("of images that are not in the list", number)
            continue
        unread.update(dict.fromkeys(other for other in entry if other not in _READ))
        caption = entry.get("caption")
        if isinstance(caption, str):
            captions.setdefault(key, []).append(caption)
        elif caption is not None:
            count("with a caption that is no text", number)
        if "category_id" not in entry:
            continue
        category = names.get(_key(entry["category_id"]))
        if category is None:
            count("of categories that are not in the list", number)
            continue
        phrase: dict[str, Any] = {"phrase": category}
        box = entry.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box):
            phrase["box"] = box
        elif box:
            count("with a box that is not four numbers", number)
        phrases.setdefault(key, []).append(phrase)
    remarks = [f"{times:,} annotations {what} are left out, the first at {first[what]}" for what, times in odd.items()]
    if unread:
        remarks.append(f"of the annotations, {', '.join(unread)} are left out")
    return captions, phrases, remarks
