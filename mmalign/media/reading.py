"""Reading the bytes of a local file or a URL, with limits, so that no file and no server can block or flood a run."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmalign.errors import DecodeError
from mmalign.media.embedded import parse_embedded, read_embedded
from mmalign.media.locating import on_disk
from mmalign.media.policy import MAX_BYTES, MediaPolicy, check_size
from mmalign.media.uris import is_url, uri_to_path


@dataclass(frozen=True, slots=True)
class Media:
    """The bytes of one item.

    Attributes:
        data: The bytes, at least one.
        mtime_ns: When the file was last changed, in nanoseconds since the epoch; None for a URL.
        file_bytes: Size of the file that holds them, where that is more than they: of a Parquet file, say.
    """

    data: bytes
    mtime_ns: int | None
    file_bytes: int | None = None


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


def read_media(
    uri: str,
    *,
    max_bytes: int = MAX_BYTES,
    stop: Callable[[], bool] | None = None,
    policy: MediaPolicy | None = None,
) -> Media:
    """Read a local file or an http(s) URL whole.

    Args:
        uri: A path, a `file://` URI or an http(s) URL.
        max_bytes: Refuse anything larger.
        stop: Asked now and then during a download; when it says True, the download is given up.
        policy: What may be read; None for that of the environment.

    Returns:
        The bytes and, for a file, its modification time.

    Raises:
        DecodeError: It cannot be read; `reason` says why.
    """
    policy = MediaPolicy.from_environment() if policy is None else policy
    limit = min(max_bytes, policy.max_bytes)
    if is_url(uri):
        if not policy.allow_network:
            raise DecodeError(uri, "URLs may not be fetched here")
        # Late: most collections hold files alone.
        from mmalign.media.downloads import download

        return Media(download(uri, policy, max_bytes=limit, stop=stop), None)
    if not policy.allow_files:
        raise DecodeError(uri, "local files may not be read here")
    path = uri_to_path(uri)
    if path is None:
        scheme = uri.partition("://")[0]
        raise DecodeError(uri, f"{scheme}:// cannot be read; give a path, a file:// URI or an http(s) URL")
    return _read_file(uri, path, limit)


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
    place = parse_embedded(uri)
    if place is not None:
        try:
            stored, state = read_embedded(uri, place, max_bytes=max_bytes)
        except OSError as error:
            raise DecodeError(uri, os_reason(error)) from error
        return Media(stored, state.st_mtime_ns, state.st_size)
    # O_NONBLOCK: to open a named pipe must not wait for a writer that never comes. It means nothing for regular files.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            # Names in NFC and NFD look alike: the one that is there is meant.
            alike = None if str(path).isascii() else on_disk(str(path))
            if alike is None:
                raise
            descriptor = os.open(alike, flags)
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
        check_size(uri, status.st_size, max_bytes)
        with os.fdopen(descriptor, "rb", buffering=0, closefd=False) as file:
            data: bytes = file.readall()
    except OSError as error:
        raise DecodeError(uri, f"cannot be read: {os_reason(error)}") from error
    finally:
        os.close(descriptor)
    return Media(data, status.st_mtime_ns)
