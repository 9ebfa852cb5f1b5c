"""Paths as URIs: every URI is one printable line of valid UTF-8, and leads back to the same path."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from mmalign.errors import InputError
from mmalign.media.embedded import parse_embedded

# Control characters, line separators, and the surrogates by which Python carries bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FILE = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether `text` is an `http://` or `https://` URL.

    Args:
        text: A path, URI or URL.

    Returns:
        True for http and https in any case of letters, else False.

    Example:
        >>> is_url("HTTPS://example.org/a.jpg"), is_url("file:///a.jpg")
        (True, False)
    """
    return text[:8].lower().startswith(("http://", "https://"))


def path_to_uri(path: str | os.PathLike[str]) -> str:
    r"""The URI of a path: the absolute path itself where it is printable, else a percent-encoded `file://` URI.

    Args:
        path: Any path; a relative one is taken from the working folder. Links are not resolved.

    Returns:
        One printable line of valid UTF-8.

    Raises:
        InputError: No file can have this name (a NUL, or characters that the file system cannot hold).

    Example:
        >>> path_to_uri("/photos/two\nlines.jpg")
        'file:///photos/two%0Alines.jpg'
    """
    text = os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links
    if not _UNPRINTABLE.search(text):
        return text
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InputError(f"no file can be named {text!r}: {error.reason}") from error
    if b"\0" in name:
        raise InputError(f"no file can be named {text!r}: it holds a NUL character")
    return "file://" + quote(name)


def uri_to_path(uri: str) -> Path | None:
    r"""The local path that a URI names.

    Args:
        uri: What `path_to_uri` returned, any other path, or a `file://` URI.

    Returns:
        The path, or None for an http(s) URL and every other scheme; for a picture that is stored in a Parquet file,
        the path of that file.

    Example:
        >>> uri_to_path("file:///photos/two%0Alines.jpg").name
        'two\nlines.jpg'
    """
    local = _FILE.match(uri)
    if local:
        stored = parse_embedded(uri)
        if stored is not None:
            return stored.path
        return Path(os.fsdecode(unquote_to_bytes(uri[local.end() :])))
    if _SCHEME.match(uri):
        return None
    return Path(uri)


def to_uri(text: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None) -> str:
    """The URI of what a person or a table calls a picture: a path, a `file://` URI or a URL.

    Args:
        text: A path, `file://` URI or URL.
        base: Folder that relative paths start from; the working folder where None.

    Returns:
        One printable line of valid UTF-8; a URL keeps its form, with unprintable characters percent-encoded.

    Raises:
        InputError: No file can have this name.

    Example:
        >>> to_uri("a.jpg", base="/photos"), to_uri("http://example.org/a.jpg", base="/photos")
        ('/photos/a.jpg', 'http://example.org/a.jpg')
    """
    name = os.fspath(text)
    if isinstance(text, str) and _SCHEME.match(text):
        stored = parse_embedded(text)
        if stored is not None:
            return stored.uri
        path = uri_to_path(text)
        if path is None:
            return _UNPRINTABLE.sub(lambda found: quote(found[0], errors="surrogateescape"), text)
        return path_to_uri(path)
    return path_to_uri(name if base is None else os.path.join(base, name))  # noqa: PTH118 - a hot path


def same_uris(name: str) -> tuple[str, ...]:
    """Every URI that an item may have which a person calls by this name.

    Args:
        name: A URI as mmalign prints it, one that is encoded in another way, a path, or anything else.

    Returns:
        The name itself, and the form in which its URI is kept where that is another.

    Example:
        >>> same_uris("file:///photos/a%20b.jpg")
        ('file:///photos/a%20b.jpg', '/photos/a b.jpg')
    """
    try:
        kept = to_uri(name)
    except InputError:
        return (name,)
    return (name,) if kept == name else (name, kept)
