"""What was removed from a collection, so that the next `index` does not bring it back.

A file that is only ever appended to: one line for each picture, in one write that is forced to disk before the item
goes. It holds digests alone, so that a purge leaves no byte of a name or a picture behind:

    - <digest of the URI> <digest of the picture's bytes> <checksum>       removed
    + <digest of the URI> <digest of the picture's bytes> <checksum>       brought back
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

from mmalign.errors import StorageError
from mmalign.utils import storage_errors

FILE = "removed"
_NOTHING = "-" * 32
_WHOLE = len("- ") + 2 * len(_NOTHING) + len("  ") + 8


class Removed:
    """What was removed earlier.

    Args:
        folder: The collection.

    Attributes:
        damaged: Lines that cannot be read: so many pictures may come back.

    It knows what was removed only where `read` made it; to remember more, nothing needs to be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._uris: set[str] = set()
        self._pictures: set[str] = set()
        self.damaged = 0

    @classmethod
    def read(cls, folder: Path) -> Removed:
        """Read what was removed from a collection.

        Args:
            folder: The collection.

        Returns:
            What was removed; nothing where there is no file.

        Raises:
            StorageError: The file is there and cannot be read.
        """
        removed = cls(folder)
        try:
            text = removed._path.read_bytes().decode("latin-1")
        except FileNotFoundError:
            return removed
        except OSError as error:
            raise StorageError(f"cannot read {removed._path}: {error.strerror or error}") from error
        for line in text.split("\n"):
            parts = line.split(" ")
            if len(parts) == 4 and parts[0] in ("+", "-") and _seal(line.rpartition(" ")[0]) == line:
                removed._take(*parts[:3])
            elif len(line) >= _WHOLE:
                # A shorter one was cut off by a crash, before the item went.
                removed.damaged += 1
        return removed

    def has_uri(self, uri: str) -> bool:
        """Whether the item at this place was removed.

        Args:
            uri: The item's URI.
        """
        return bool(self._uris) and _digest(uri) in self._uris

    def has_picture(self, sha256: str) -> bool:
        """Whether a picture of these bytes was removed.

        Args:
            sha256: Of the bytes.
        """
        return bool(self._pictures) and _digest(sha256) in self._pictures

    def remember(self, items: Iterable[tuple[str | None, str | None]]) -> None:
        """Remember that items are removed; to be called before they are.

        Args:
            items: URI and SHA-256 of each; one of both may be None.

        Raises:
            StorageError: The disk refused; nothing is remembered.
        """
        self._append("-", items)

    def forget(self, items: Iterable[tuple[str | None, str | None]]) -> None:
        """Forget that items were removed, as far as `read` has found that they were.

        Args:
            items: As for `remember`.

        Raises:
            StorageError: The disk refused; nothing is forgotten.
        """
        known = [
            (uri if uri and self.has_uri(uri) else None, sha256 if sha256 and self.has_picture(sha256) else None)
            for uri, sha256 in items
        ]
        self._append("+", known)

    def _append(self, sign: str, items: Iterable[tuple[str | None, str | None]]) -> None:
        lines = []
        for uri, sha256 in items:
            digests = [_NOTHING if value is None else _digest(value) for value in (uri, sha256)]
            if digests != [_NOTHING, _NOTHING]:
                lines.append(_seal(f"{sign} {digests[0]} {digests[1]}"))
                self._take(sign, *digests)
        if not lines:
            return
        # A line end first: what a power cut has cut off must not be joined with it.
        data = "\n".join(["", *lines, ""]).encode()
        with storage_errors(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                written = os.write(descriptor, data)
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _take(self, sign: str, uri: str, picture: str) -> None:
        for value, known in ((uri, self._uris), (picture, self._pictures)):
            if value != _NOTHING:
                (known.add if sign == "-" else known.discard)(value)


def _digest(text: str) -> str:
    # Of the SHA-256 too, which would itself be a byte of the item.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _seal(line: str) -> str:
    return f"{line} {zlib.crc32(line.encode('latin-1')):08x}"
