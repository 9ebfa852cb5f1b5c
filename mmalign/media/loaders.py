"""Loaders: what reads the files of one kind, and what an ingest gets of each.

A kind is what an item is: `image`, and whatever else a loader is registered for. A loader says which names are of its
kind, how large its items are and in which columns that is kept, and gives each a picture to be encoded by.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol
from urllib.parse import urlsplit

from mmalign.errors import InputError
from mmalign.media.formats import IMAGE_SUFFIXES
from mmalign.media.policy import MediaPolicy
from mmalign.media.uris import is_url
from mmalign.types import Skip

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Loaded(ABC):
    """What was read of one item; each kind has a class of its own.

    Attributes:
        uri: Where it is.
        sha256: Digest of its bytes, in 64 hexadecimal digits.
        bytes: Size of its file in bytes; of the file that it is stored in, where that holds more.
        mtime_ns: When the file was last changed, in nanoseconds since the epoch; None for a URL.
        image: The picture that it is found by, upright 8-bit RGB; None where `wanted` declined it.
        kind: Of the item that it becomes.
    """

    kind: ClassVar[str]
    uri: str
    sha256: str
    bytes: int
    mtime_ns: int | None
    image: Image.Image | None = None

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int | float | None]:
        """How large it is, by the names of `Loader.sizes`; what they say where it was declined is not kept."""


class Loader(Protocol):
    """What reads the files of one kind.

    Attributes:
        kind: The kind, as items keep it.
        suffixes: Endings of its files, lower-case, each with its dot.
        sizes: What says how large an item of the kind is: the name of each column, and its type by Arrow's name for
            it, such as `int32` or `float64`.
    """

    @property
    def kind(self) -> str:
        """The kind, as items keep it."""

    @property
    def suffixes(self) -> Collection[str]:
        """Endings of its files, lower-case, each with its dot."""

    @property
    def sizes(self) -> Mapping[str, str]:
        """The columns that say how large an item of the kind is, each with Arrow's name for its type."""

    def load(
        self, uris: Iterable[str], *, wanted: Callable[[str], bool] | None = None, policy: MediaPolicy | None = None
    ) -> Generator[Loaded | Skip, None, None]:
        """Read files of the kind; exactly one result for each URI, in order.

        Args:
            uris: Paths, `file://` URIs and http(s) URLs, consumed as they are needed.
            wanted: Asked with the SHA-256 of the bytes, from any thread, whether to give the picture; None for always.
            policy: What may be read; None for that of the environment.

        Returns:
            A generator of a `Loaded`, or of a `Skip` for what cannot be read.
        """


_BY_SUFFIX: dict[str, Loader] = {}


def register_loader(loader: Loader) -> None:
    """Have files of another kind read; whoever registers the kind again puts the new loader in the old one's place.

    Args:
        loader: What reads them. Folders are looked through for its endings from now on, in this process.

    Raises:
        InputError: The kind is `image` or `vector`, it has no endings, or one of them is another loader's.
    """
    if loader.kind in {"image", "vector", ""}:
        raise InputError(f"the kind {loader.kind!r} is mmalign's own; give the loader's kind another name")
    if not loader.suffixes:
        raise InputError(f"the loader of {loader.kind!r} names no endings; give some, such as {{'.mp4'}}")
    for suffix in loader.suffixes:
        other = _BY_SUFFIX.get(suffix)
        if suffix in IMAGE_SUFFIXES or (other is not None and other.kind != loader.kind):
            raise InputError(f"files that end in {suffix} are read as {'image' if other is None else other.kind} here")
    unregister_loader(loader.kind)
    _BY_SUFFIX.update(dict.fromkeys(loader.suffixes, loader))


def unregister_loader(kind: str) -> None:
    """Have files of a kind read no more; a kind that nobody registered is passed over.

    Args:
        kind: The kind.
    """
    for suffix in [suffix for suffix, loader in _BY_SUFFIX.items() if loader.kind == kind]:
        del _BY_SUFFIX[suffix]


def registered_loader(uri: str) -> Loader | None:
    """Return the loader that was registered for a file; None for what is read as a picture.

    Args:
        uri: A path, a `file://` URI or an http(s) URL.
    """
    if not _BY_SUFFIX:
        return None
    name = urlsplit(uri).path if is_url(uri) else uri
    return _BY_SUFFIX.get(os.path.splitext(name)[1].lower())  # noqa: PTH122 - a hot path


def is_read(suffix: str) -> bool:
    """Whether files with an ending are read.

    Args:
        suffix: The ending, lower-case, with its dot.
    """
    return suffix in IMAGE_SUFFIXES or suffix in _BY_SUFFIX
