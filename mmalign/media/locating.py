r"""Where the pictures are that a table or a list names: the name as it is on disk becomes the URI.

A name that is not there as it is written is looked for without the spaces around it, with `/` for `\`, from the home
folder for `~`, in its other Unicode form (NFC and NFD look alike), and in the folders that data sets keep their
pictures in. What is not found keeps the name that it was given.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmalign.media.embedded import parse_embedded
from mmalign.media.loaders import is_read
from mmalign.media.uris import is_url, path_to_uri, to_uri, uri_to_path

PICTURE_FOLDERS = frozenset(
    {"images", "image", "imgs", "img", "pictures", "photos", "jpegimages", "train", "val", "valid", "test"}
    | {"train2014", "val2014", "test2014", "train2017", "val2017", "test2017"}
    | {"flicker8k_dataset", "flickr8k_dataset", "flickr8k_images", "flickr30k_images", "flickr30k-images"}
)
"""Lower-case names of folders, beside a table, that data sets keep their pictures in."""

_MOST_REMARKS = 20
_LONGEST_PATH = 4096


def is_picture_name(text: str) -> bool:
    """Whether a text can only be the place of a picture: a URL, or a name with the ending of a picture.

    Args:
        text: The text of a cell or key.

    Returns:
        True for `a/b.jpg` and `https://example.org/1`, False for words.
    """
    if len(text) > _LONGEST_PATH or "\n" in text:
        return False
    stem, _, ending = text.strip().rpartition(".")
    return is_url(text) or (bool(stem) and is_read(f".{ending.lower()}"))


class Locator:
    """Finds the pictures that one table or list names.

    Args:
        base: Absolute folder that relative paths start from.
        folders: Whether to look into `PICTURE_FOLDERS` of that folder too.
        beside: Further folders to look into, in this order.
    """

    def __init__(self, base: str, *, folders: bool = False, beside: Sequence[str] = ()) -> None:
        self._base = base
        self._names: dict[str, dict[str, list[str]]] = {}
        self._folders: list[str] | None = None if folders else []
        self._beside = beside
        self._notes: list[str] = []
        self._told: Counter[str] = Counter()

    def uri(self, text: str | os.PathLike[str]) -> str:
        """The URI of a picture.

        Args:
            text: A path, a `file://` URI or a URL, as it was written.

        Returns:
            The URI of the file on disk where there is one, else of the path as given.

        Raises:
            InputError: No file can have this name.
        """
        uri = to_uri(text, base=self._base)
        if uri.startswith("/"):
            given = uri
        else:
            path = None if is_url(uri) or parse_embedded(uri) is not None else uri_to_path(uri)
            if path is None:
                return uri
            given = str(path)
        found = self.on_disk(given)
        if found is not None:
            return uri if found == given else path_to_uri(found)
        found = self._other(os.fspath(text), given)
        return uri if found is None else path_to_uri(found)

    def notes(self) -> Iterator[str]:
        """What there is to say of the names asked for since the last call."""
        notes, self._notes = self._notes, []
        yield from notes

    def on_disk(self, path: str) -> str | None:
        """The path as the disk spells it, or None where nothing is there.

        Args:
            path: An absolute path.
        """
        if path.isascii():
            # A broken link is there too: to say that it is broken is the reader's business.
            return path if os.path.lexists(path) else None
        folder, name = os.path.split(path)
        if not name:
            return path
        there = self.on_disk(folder)
        if there is None:
            return None
        if name.isascii():
            path = os.path.join(there, name)  # noqa: PTH118 - a hot path
            return path if os.path.lexists(path) else None
        names = self._listing(there).get(_folded(name), [])
        alike = [entry for entry in names if _composed(entry) == _composed(name)]
        if name in alike or (not names and os.path.lexists(os.path.join(there, name))):  # noqa: PTH118
            return os.path.join(there, name)  # noqa: PTH118 - a hot path
        return os.path.join(there, alike[0]) if alike else None  # noqa: PTH118 - a hot path

    def _other(self, text: str, given: str) -> str | None:
        """What was meant by a name that is not there."""
        stripped = text.strip()
        if stripped != text:
            found = self.on_disk(self._join(stripped))
            if found is not None:
                return found
        if stripped.startswith("~"):
            found = self.on_disk(os.path.expanduser(stripped))  # noqa: PTH111 - no error for a "~name" that is no user
            if found is not None:
                return found
        if "\\" in stripped and "://" not in stripped:
            stripped = stripped.replace("\\", "/")
            found = self.on_disk(self._join(stripped))
            if found is not None:
                self._say("backslash", "paths with \\ are read with /")
                return found
        if not os.path.isabs(stripped) and "://" not in stripped:  # noqa: PTH117 - a hot path
            found = self._in_folders(stripped)
            if found is not None:
                return found
        self._say_spelling(given)
        return None

    def _join(self, text: str) -> str:
        return os.path.abspath(os.path.join(self._base, text))  # noqa: PTH100, PTH118 - a hot path

    def _in_folders(self, text: str) -> str | None:
        if self._folders is None:
            names = (name for entry in self._listing(self._base).values() for name in entry)
            folders = sorted(name for name in names if name.casefold() in PICTURE_FOLDERS)
            self._folders = [os.path.join(self._base, name) for name in folders]  # noqa: PTH118 - absolute
        places = []
        for folder in dict.fromkeys([*self._folders, *self._beside]):
            found = self.on_disk(os.path.abspath(os.path.join(folder, text)))  # noqa: PTH100, PTH118 - a hot path
            if found is not None:
                places.append((folder, found))
        if len(places) > 1 and len({os.path.realpath(found) for _, found in places}) > 1:
            where = " and ".join(path_to_uri(folder) for folder, _ in places[:3])
            self._say(f"several {where}", f"{text!r} is in {where}: put the folder into the path to say which is meant")
            return None
        if not places:
            return None
        folder, found = places[0]
        self._say(f"folder {folder}", f"pictures that are not beside the table are taken from {path_to_uri(folder)}")
        return found

    def _listing(self, folder: str) -> dict[str, list[str]]:
        """The names in a folder by what they are without regard to case and Unicode form."""
        listing = self._names.get(folder)
        if listing is None:
            listing = {}
            try:
                for name in sorted(os.listdir(folder)):  # noqa: PTH208 - a hot path
                    listing.setdefault(_folded(name), []).append(name)
            except OSError:
                # A folder that may be entered but not listed: names in it are asked for one by one.
                pass
            self._names[folder] = listing
        return listing

    def _say_spelling(self, given: str) -> None:
        folder, name = os.path.split(given)
        there = self.on_disk(folder)
        alike = [] if there is None else self._listing(there).get(_folded(name), [])
        if alike and self._told["spelling"] < _MOST_REMARKS:
            self._told["spelling"] += 1
            self._notes.append(f"no file {name!r} in {path_to_uri(folder)}, but {' and '.join(map(repr, alike[:3]))}")

    def _say(self, key: str, text: str) -> None:
        if not self._told[key]:
            self._told[key] = 1
            self._notes.append(text)

    def tried(self) -> list[str]:
        """The folders that relative names were looked for in, the table's own first."""
        return [self._base, *dict.fromkeys([*(self._folders or ()), *self._beside])]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def on_disk(path: str) -> str | None:
    """A path as the disk spells it: a name in NFC finds a file in NFD, and the reverse.

    Args:
        path: An absolute path.

    Returns:
        The path of what is there; None where nothing is.
    """
    return Locator(path).on_disk(path)


def sibling_folders(table: Path) -> list[str]:
    """The folders outside of a data set's folder of annotations that its pictures may be in.

    Args:
        table: Absolute path of the table.

    Returns:
        Existing folders: the one above, and those of `PICTURE_FOLDERS` in it and in their `images`.
    """
    above = table.parent.parent
    found = [above]
    for parent in (above, above / "images", table.parent / "images"):
        try:
            inside = sorted(parent.iterdir())
        except OSError:
            continue
        found += [entry for entry in inside if entry.name.casefold() in PICTURE_FOLDERS and entry.is_dir()]
    # `instances_val2017.json` speaks of `val2017` before any other.
    return sorted(map(str, found), key=lambda folder: Path(folder).name.lower() not in table.stem.lower())
