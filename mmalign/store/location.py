"""Where a table lies: a folder of this machine, or a place in an S3 object store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from mmalign.errors import InputError

_S3 = "s3://"
# The names that Lance reads an address from.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
# Also with one slash: `Path`, as the command line has it, takes the other one out.
_KNOWN = re.compile(r"(s3|file):/+", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
# By RFC 8089 it names this machine.
_THIS_MACHINE = re.compile(r"localhost(?=/)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Location:
    """A folder or file, on this machine or in an object store.

    Keys, region and address of an object store come from the environment, under the names that AWS gives
    them: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and `AWS_ENDPOINT_URL`
    for one that is not AWS's; where that has no TLS, Lance wants `AWS_ALLOW_HTTP=true`.

    Attributes:
        uri: A path of this machine, or `s3://BUCKET/KEY`; Lance opens either.
    """

    uri: str

    @classmethod
    def of(cls, place: str | os.PathLike[str] | Location) -> Location:
        """Understand a path, a `file://` URI or an `s3://` URI.

        Args:
            place: The place. A path may begin with `~` or `~USER`, as in a shell, and be named like a URI
                (`x:y`).

        Returns:
            The location.

        Raises:
            InputError: A URI of another kind or of another machine, or one that names no bucket or no key in it.
        """
        if isinstance(place, Location):
            return place
        text = os.fspath(place)
        known = _KNOWN.match(text)
        if known is None:
            if _SCHEME.match(text):
                raise InputError(
                    f"{text} is no place to use; give a folder of this machine, by its whole path where its name has "
                    "a colon, or s3://BUCKET/KEY"
                )
            return cls(_as_local(text))
        rest = text[known.end() :]
        if known[1].lower() == "file":
            if known[0].endswith("://") and not known[0].endswith(":///"):
                machine = _THIS_MACHINE.match(rest)
                if machine is None:
                    raise InputError(f"{text} is on another machine; give file:///FOLDER, or s3://BUCKET/KEY")
                rest = rest[machine.end() :].lstrip("/")
            return cls("/" + os.fsdecode(unquote_to_bytes(rest)))
        bucket, _, key = rest.rstrip("/").partition("/")
        if not bucket or not key:
            raise InputError(f"{text} names no bucket and key; give s3://BUCKET/KEY")
        return cls(f"{_S3}{bucket}/{key}")

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return not self.uri.startswith(_S3)

    @property
    def path(self) -> Path:
        """The path on this machine.

        Raises:
            InputError: It is in an object store.
        """
        if not self.is_local:
            raise InputError(f"{self.uri} is no folder of this machine")
        return Path(self.uri)

    def __str__(self) -> str:
        return self.uri

    def __truediv__(self, name: str) -> Location:
        """A file or folder in it."""
        return Location(str(self.path / name) if self.is_local else f"{self.uri}/{name}")

    def read_bytes(self) -> bytes:
        """Read a file.

        Returns:
            All of it.

        Raises:
            OSError: There is none, or it cannot be read.
        """
        if self.is_local:
            return self.path.read_bytes()
        from pyarrow.fs import S3FileSystem

        endpoint = next((found for name in _ENDPOINTS if (found := os.environ.get(name))), None)
        system = S3FileSystem(endpoint_override=endpoint, region=os.environ.get("AWS_REGION"))
        with system.open_input_stream(self.uri.removeprefix(_S3)) as file:
            return bytes(file.read())


def _as_local(text: str) -> str:
    """A path as Lance and Python understand alike."""
    # Not pathlib: it raises on a "~name" that is no user, which a shell takes as it is.
    path = os.path.expanduser(text)  # noqa: PTH111
    first = Path(path).parts[:1]
    # Lance would read what stands before the colon as the scheme of a URI, and any "~" as the home folder.
    if first and (":" in first[0] or first[0].startswith("~")):
        return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links
    return path
