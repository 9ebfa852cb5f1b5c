"""Scanning folders for pictures and their captions: in natural order, once each, without following loops."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmalign.errors import DecodeError
from mmalign.media.exclusion import Exclusion
from mmalign.media.file_kinds import begins_as_picture, ending_of, kind_by_name
from mmalign.media.loaders import is_read
from mmalign.media.reading import os_reason, read_media
from mmalign.media.uris import path_to_uri
from mmalign.types import Item, Skip, Unread

COLLECTION_SUFFIX = ".mm"
"""Folders that end so are collections: no source of pictures."""

_CAPTION_BYTES = 1 << 20
_DIGITS = re.compile("([0-9]+)")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """The sort key by which `b2` comes before `b10`.

    Args:
        name: A file or folder name.

    Returns:
        A key that orders any two different names.

    Example:
        >>> sorted(["b10", "B2", "a"], key=natural_key)
        ['a', 'B2', 'b10']
    """
    # Texts and numbers alternate from a text on, so like is only ever compared with like.
    return [int(part) if at % 2 else part for at, part in enumerate(_DIGITS.split(name.casefold()))], name


def is_image_name(name: str) -> bool:
    """Whether a file name ends like that of a picture, or of another kind that is read.

    Args:
        name: A file name or path.

    Returns:
        True for the endings that are read, in any case of letters.
    """
    return is_read(os.path.splitext(name)[1].lower())  # noqa: PTH122 - a hot path


def picture_items(path: str, *, has_text: bool | None = None) -> Iterator[Item | Skip]:
    """The item of one picture file, with the lines of the `.txt` file of the same name as captions.

    Args:
        path: Absolute path of the picture; it is not looked at.
        has_text: Whether the text file is there, where the caller knows.

    Yields:
        The item; and a `Skip` for a text file that is there but cannot be read.
    """
    text = os.path.splitext(path)[0] + ".txt"  # noqa: PTH122 - a hot path
    captions: tuple[str, ...] = ()
    note = None
    if has_text or (has_text is None and os.path.isfile(text)):  # noqa: PTH113 - a hot path
        captions, note = _captions(text)
    # Captions that cannot be read are not gone: nobody says anything of the picture then.
    yield Item(path_to_uri(path), captions=captions, source="txt" if note is None else None)
    if note is not None:
        yield note


def _captions(text: str) -> tuple[tuple[str, ...], Skip | None]:
    uri = path_to_uri(text)
    try:
        status = os.stat(text)  # noqa: PTH116 - a hot path
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            return (), None
        lines = read_media(uri, max_bytes=_CAPTION_BYTES).data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return (), Skip(uri, "captions left out: the text is not UTF-8; save it as UTF-8")
    except DecodeError as error:
        return (), Skip(uri, f"captions left out: {error.reason}")
    except OSError as error:
        return (), Skip(uri, f"captions left out: {os_reason(error)}")
    return tuple(caption for line in lines if (caption := line.strip())), None


def scan_folder(root: str, exclusion: Exclusion | None = None) -> Iterator[Item | Skip | Unread]:
    """Find the pictures in a folder and its subfolders, as `walk_folder`.

    Args:
        root: Absolute path of the folder, links resolved.
        exclusion: What else stays out, and counts it; None for what stays out by default.

    Yields:
        An `Item` for each picture; a `Skip` for a folder or link that cannot be followed. At the end, an `Unread` for
        each kind of file that looks like media and is not read.
    """
    unread: Counter[str] = Counter()
    for _, entry in walk_folder(root, Exclusion(root) if exclusion is None else exclusion):
        if isinstance(entry, Unread):
            unread[entry.ending] += entry.count
        else:
            yield entry
    for ending, count in unread.most_common():
        yield Unread(ending, count)


def walk_folder(root: str, exclusion: Exclusion) -> Iterator[tuple[str, Item | Skip | Unread]]:
    """Find the pictures in a folder and its subfolders, and what looks like media and is not read.

    Files come before subfolders, each in natural order. Hidden entries and collections are left out. Linked folders
    are entered last, and no folder twice; a link to a folder that holds `root` is a loop and is not followed.

    Args:
        root: Absolute path of the folder, links resolved.
        exclusion: What else stays out, and counts it.

    Yields:
        The absolute path; with an `Item` for a picture, a `Skip` for a folder or link that cannot be followed, an
        `Unread` for a file that looks like media and is not read.
    """
    visited = {_identity(folder.stat()) for folder in Path(root).parents}
    linked: list[str] = []
    stack = [root]
    while stack or linked:
        folder = stack.pop() if stack else linked.pop(0)
        try:
            identity = _identity(os.stat(folder))  # noqa: PTH116 - a hot path
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: natural_key(entry.name))
        except OSError as error:
            yield folder, Skip(path_to_uri(folder), f"the folder cannot be listed: {os_reason(error)}")
            continue
        names = {entry.name for entry in entries}
        below: list[str] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:
                yield entry.path, Skip(path_to_uri(entry.path), os_reason(error))
                continue
            if is_folder:
                if not (
                    entry.name.lower().endswith(COLLECTION_SUFFIX) or exclusion.leaves_out(entry.path, folder=True)
                ):
                    (linked if entry.is_symlink() else below).append(entry.path)
            elif is_file:
                kind = kind_by_name(entry.name)
                if kind == "other" or exclusion.leaves_out(entry.path):
                    continue
                if kind == "look":
                    try:
                        kind = "picture" if begins_as_picture(entry.path) else "other"
                    except OSError as error:
                        yield entry.path, Skip(path_to_uri(entry.path), f"cannot be looked at: {os_reason(error)}")
                if kind == "picture":
                    stem = os.path.splitext(entry.name)[0]  # noqa: PTH122 - a hot path
                    for found in picture_items(entry.path, has_text=f"{stem}.txt" in names):
                        yield entry.path, found
                elif kind == "unread":
                    yield entry.path, Unread(ending_of(entry.name))
            elif not exclusion.leaves_out(entry.path):
                for found in _odd(entry):
                    yield entry.path, found
        stack.extend(reversed(below))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _odd(entry: os.DirEntry[str]) -> Iterator[Skip]:
    """What is neither file nor folder, where it could have been a picture or a folder of pictures."""
    named_like_picture = is_image_name(entry.name)
    if not os.path.exists(entry.path):  # noqa: PTH110 - a hot path
        if named_like_picture or "." not in entry.name:
            yield Skip(path_to_uri(entry.path), "a broken symbolic link")
        return
    if named_like_picture:
        yield Skip(path_to_uri(entry.path), "not a regular file")
