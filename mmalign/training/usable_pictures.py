"""Which pictures of a training can be decoded, found out once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from mmalign.encoders import default_workers, load_rgb
from mmalign.errors import DecodeError
from mmalign.training.manifest import CaptionedFile
from mmalign.types import Skip
from mmalign.utils import ShowProgress


def usable_pictures(
    pictures: Sequence[CaptionedFile], *, cache: Path, role: str, progress: ShowProgress | None = None
) -> tuple[list[CaptionedFile], list[Skip]]:
    """Decode every picture once, so that no training stops at a broken one; remembered by name and size.

    Args:
        pictures: The pictures.
        cache: Where to remember which are sound.
        role: Names the pictures in the progress.
        progress: Told of every picture.

    Returns:
        Those that can be decoded, in order, and the others with the reason.
    """
    path = cache / "decodable.jsonl"
    known: set[str] = set()
    if path.is_file():
        known = {line for line in path.read_text(encoding="utf-8").splitlines() if line}
    cache.mkdir(parents=True, exist_ok=True)
    good: list[CaptionedFile] = []
    skips: list[Skip] = []
    with path.open("a", encoding="utf-8") as stream, ThreadPoolExecutor(default_workers()) as pool:
        keys = [picture_key(picture) for picture in pictures]
        reasons = pool.map(lambda picture, key: None if key in known else _fault(picture.path), pictures, keys)
        for done, (picture, key, reason) in enumerate(zip(pictures, keys, reasons, strict=True), 1):
            if reason is None:
                good.append(picture)
                if key not in known:
                    stream.write(key + "\n")
            else:
                skips.append(Skip(uri=picture.path, reason=reason))
            if progress is not None:
                progress(f"checking {role} pictures", done, len(pictures))
    return good, skips


def picture_key(picture: CaptionedFile) -> str:
    """What decides a picture's pixels, as far as can be told without reading it: its path and its size in bytes."""
    try:
        size = Path(picture.path).stat().st_size
    except OSError:
        size = -1
    return json.dumps([picture.path, size])


def _fault(path: str) -> str | None:
    try:
        with Image.open(path) as opened:
            # A JPEG is decoded at an eighth of its size, which reads every byte and takes a fraction of the time.
            opened.draft("RGB", (1, 1))
            opened.load()
    except Exception:  # load_rgb knows which of them mean what
        try:
            load_rgb(path)
        except DecodeError as error:
            return error.reason
    return None
