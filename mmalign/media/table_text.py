"""The text of a table file: unpacked where it is compressed, decoded as its first bytes say."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from mmalign.errors import SourceError

COMPRESSED_SUFFIXES = frozenset({".gz", ".bz2", ".xz"})
"""Lower-case endings of compressed files that are read as if they were unpacked."""

_HEAD_BYTES = 4096
_UNPACK: Mapping[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = (
    (b"PAR1", "a Parquet file; give it a name that ends in .parquet"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save the sheet as CSV UTF-8"),
    (b"ARROW1", "an Arrow (Feather) file; save it as Parquet: pyarrow.parquet.write_table(table, 'table.parquet')"),
    (b"SQLite format 3", "a SQLite database; export the table as CSV"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first: zstd -d FILE"),
    (b"%PDF-", "a PDF document, not a table"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch it: git lfs pull"),
)


def open_table_text(path: Path, name: str) -> IO[str]:
    """Open a table for reading as text; lines keep their ends.

    Bytes that are not UTF-8 become surrogates: in a path they are right, and elsewhere the row is reported.

    Args:
        path: The file.
        name: What to call it in errors.

    Returns:
        The text, without a byte order mark.

    Raises:
        SourceError: The file holds no text; the error says what it holds and the way out.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    opener = next((opener for mark, opener in _UNPACK.items() if head.startswith(mark)), None)
    binary: IO[bytes] = path.open("rb") if opener is None else opener(path, "rb")
    try:
        if opener is not None:
            head = binary.read(_HEAD_BYTES)
            binary.seek(0)
        refuse_other_formats(head, name)
    except (EOFError, OSError, lzma.LZMAError, SourceError) as error:
        binary.close()
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{name} cannot be unpacked: {error}; it may be cut short") from error
    encoding = _encoding(head)
    # A half of a character in UTF-16 costs its row, as bytes that are not UTF-8 do.
    errors = "surrogateescape" if encoding == "utf-8-sig" else "surrogatepass"
    return io.TextIOWrapper(binary, encoding=encoding, errors=errors, newline="")


def refuse_other_formats(head: bytes, name: str) -> None:
    """Say what a file is that only calls itself a table.

    Args:
        head: Its first bytes, unpacked.
        name: What to call it in the error.

    Raises:
        SourceError: It is no text; the error names the format and the way out.
    """
    for mark, what in _NO_TEXT:
        if head.startswith(mark):
            raise SourceError(f"{name} is {what}")
    if head[257:262] == b"ustar":
        raise SourceError(f"{name} is a tar archive; unpack it: tar -xf FILE")


def _encoding(head: bytes) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    # UTF-16 without its mark: every other byte of plain letters is 0.
    pairs = len(head) // 2
    if pairs >= 8 and head[1::2].count(0) > 0.8 * pairs and head[0::2].count(0) < 0.1 * pairs:
        return "utf-16-le"
    if pairs >= 8 and head[0::2].count(0) > 0.8 * pairs and head[1::2].count(0) < 0.1 * pairs:
        return "utf-16-be"
    return "utf-8-sig"
