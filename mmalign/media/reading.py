"""Reading the bytes of a local file or a URL, with limits, so that no file and no server can block or flood a run."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from mmalign.errors import DecodeError
from mmalign.media.uris import is_url, uri_to_path

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

MAX_BYTES = 1 << 29
"""Largest file that is read, in bytes: enough for an uncompressed picture at the pixel limit."""

_USER_AGENT = "mmalign/0.1 (picture indexer)"
_TIMEOUT_S = 20.0
_DOWNLOAD_S = 120.0
_CHUNK = 1 << 16
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"


@dataclass(frozen=True, slots=True)
class Media:
    """The bytes of one item.

    Attributes:
        data: The bytes, at least one.
        mtime_ns: When the file was last changed, in nanoseconds since the epoch; None for a URL.
    """

    data: bytes
    mtime_ns: int | None


def sha256_hex(data: bytes) -> str:
    """The SHA-256 digest of some bytes.

    Args:
        data: The bytes.

    Returns:
        64 lower-case hexadecimal digits.

    Example:
        >>> sha256_hex(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def read_media(uri: str, *, max_bytes: int = MAX_BYTES, stop: Callable[[], bool] | None = None) -> Media:
    """Read a local file or an http(s) URL whole.

    Args:
        uri: A path, a `file://` URI or an http(s) URL.
        max_bytes: Refuse anything larger.
        stop: Asked between the pieces of a download; when it says True, the download is given up.

    Returns:
        The bytes and, for a file, its modification time.

    Raises:
        DecodeError: It cannot be read; `reason` says why.
    """
    if is_url(uri):
        return Media(_download(uri, max_bytes, stop), None)
    path = uri_to_path(uri)
    if path is None:
        scheme = uri.partition("://")[0]
        raise DecodeError(uri, f"{scheme}:// cannot be read; give a path, a file:// URI or an http(s) URL")
    return _read_file(uri, path, max_bytes)


def os_reason(error: OSError) -> str:
    """What went wrong with a file, in a few words.

    Args:
        error: What the operating system said.

    Returns:
        A reason such as "not found" or "permission denied".
    """
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return "not found"
        case errno.EACCES | errno.EPERM:
            return "permission denied"
        case errno.ELOOP:
            return "a symbolic link that leads back to itself"
        case errno.ENXIO:
            return "not a regular file"
    return error.strerror or str(error)


def _read_file(uri: str, path: Path, max_bytes: int) -> Media:
    # O_NONBLOCK: to open a named pipe must not wait for a writer that never comes. It means nothing for regular files.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise DecodeError(uri, os_reason(error)) from error
    except ValueError as error:
        raise DecodeError(uri, f"not a path: {error}") from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise DecodeError(uri, "a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(uri, "not a regular file")
        _check_size(uri, status.st_size, max_bytes)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            data: bytes = file.readall()
    except OSError as error:
        raise DecodeError(uri, f"cannot be read: {os_reason(error)}") from error
    finally:
        os.close(descriptor)
    return Media(data, status.st_mtime_ns)


def _check_size(uri: str, size: int, max_bytes: int) -> None:
    if size == 0:
        raise DecodeError(uri, "empty file (0 bytes)")
    if size > max_bytes:
        raise DecodeError(uri, f"too large: {size:,} bytes, the limit is {max_bytes:,}")


@cache
def _opener() -> OpenerDirector:
    # Not urllib's default opener: that one would follow a redirect to ftp:// or open file://.
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", _USER_AGENT)]
    return opener


def _ascii_url(url: str) -> str:
    parts = urlsplit(url)
    netloc = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    return urlunsplit((parts.scheme, netloc, quote(parts.path, safe=_URL_SAFE), quote(parts.query, safe=_URL_SAFE), ""))


def _download(uri: str, max_bytes: int, stop: Callable[[], bool] | None) -> bytes:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    try:
        with _opener().open(_ascii_url(uri), timeout=_TIMEOUT_S) as response:
            return _receive(uri, response, max_bytes, stop)
    except HTTPError as error:
        error.close()
        raise DecodeError(uri, f"the server answered HTTP {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise DecodeError(uri, f"no answer within {_TIMEOUT_S:.0f} s") from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise DecodeError(uri, f"no answer within {_TIMEOUT_S:.0f} s") from error
        raise DecodeError(uri, f"cannot be fetched ({error.reason}); is there a network?") from error
    except (OSError, HTTPException) as error:
        raise DecodeError(uri, f"the download broke off ({error or type(error).__name__})") from error
    except ValueError as error:
        raise DecodeError(uri, f"not a URL that can be fetched: {error}") from error


def _receive(uri: str, response: Any, max_bytes: int, stop: Callable[[], bool] | None) -> bytes:
    declared = response.headers.get("Content-Length", "")
    expected = int(declared) if declared.isdigit() else None
    if expected is not None:
        _check_size(uri, expected, max_bytes)
    deadline = time.monotonic() + _DOWNLOAD_S
    received = bytearray()
    # read1 returns what has arrived; read would wait for a full piece and let a slow server hold the worker.
    while piece := response.read1(_CHUNK):
        received += piece
        if len(received) > max_bytes:
            raise DecodeError(uri, f"too large: more than the limit of {max_bytes:,} bytes")
        if stop is not None and stop():
            raise DecodeError(uri, "interrupted")
        if time.monotonic() > deadline:
            raise DecodeError(uri, f"took longer than {_DOWNLOAD_S:.0f} s to arrive")
    if expected is not None and len(received) < expected:
        raise DecodeError(uri, f"truncated download: {len(received):,} of {expected:,} bytes")
    _check_size(uri, len(received), max_bytes)
    return bytes(received)
