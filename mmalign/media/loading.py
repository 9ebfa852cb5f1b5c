"""Files of any kind, each read by the loader of its kind."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import groupby

from mmalign.media.formats import IMAGE_SUFFIXES
from mmalign.media.images import load_pictures
from mmalign.media.loaders import Loaded, Loader, registered_loader
from mmalign.media.policy import MediaPolicy
from mmalign.types import Skip


class PictureLoader:
    """Reads pictures."""

    kind = "image"
    suffixes = IMAGE_SUFFIXES
    sizes: Mapping[str, str] = {"width": "int32", "height": "int32"}

    def load(
        self, uris: Iterable[str], *, wanted: Callable[[str], bool] | None = None, policy: MediaPolicy | None = None
    ) -> Generator[Loaded | Skip, None, None]:
        """Read pictures, as `load_pictures`."""
        return load_pictures(uris, wanted=wanted, policy=policy)


PICTURES = PictureLoader()
"""The loader that comes with mmalign."""


def loader_of(uri: str) -> Loader:
    """Return the loader of a file: that which was registered for its ending, else the one of pictures.

    Args:
        uri: A path, a `file://` URI or an http(s) URL.
    """
    return registered_loader(uri) or PICTURES


def load_media(
    uris: Iterable[str], *, wanted: Callable[[str], bool] | None = None, policy: MediaPolicy | None = None
) -> Generator[Loaded | Skip, None, None]:
    """Read files of any kinds; exactly one result for each URI, in order.

    Files of one kind that follow one another are read together, so that their loader can read ahead.

    Args:
        uris: Paths, `file://` URIs and http(s) URLs.
        wanted: As for `Loader.load`.
        policy: As for `Loader.load`.

    Returns:
        A generator of a `Loaded`, or of a `Skip` for what cannot be read.
    """
    for loader, alike in groupby(uris, key=loader_of):
        yield from loader.load(alike, wanted=wanted, policy=policy)
