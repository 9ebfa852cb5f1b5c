"""What a file is, as far as its name says; and its first bytes, where the name says nothing."""

from __future__ import annotations

import os
import re
from typing import Literal

from mmalign.media.formats import sniff
from mmalign.media.loaders import is_read

_FILMS = (
    ".mp4 .m4v .mov .qt .avi .mkv .webm .wmv .asf .flv .f4v .mpg .mpeg .mpe .m2v .m2ts .mts .vob .ogv .3gp .3g2 .mxf "
    ".rmvb .divx .insv .braw .r3d"
)
_RAW_PHOTOS = (
    ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .srw .raf .orf .ori .rw2 .rwl .pef .ptx .raw .3fr .fff .iiq .mos "
    ".mef .mrw .erf .kdc .dcr .k25 .x3f .bay .gpr .dcs .eip .rwz"
)
_PICTURES = (
    ".jxl .svg .svgz .psd .psb .xcf .kra .ora .ai .eps .ps .pdf .cdr .exr .hdr .rgbe .dds .ktx .ktx2 .jxr .wdp .hdp "
    ".jls .pcx .dcx .sgi .ras .xbm .xpm .pict .pct .emf .wmf .djvu .djv .fits .fts .dcm .bpg .flif .cin .dpx .icns "
    ".pdn .sketch .afphoto .afdesign .indd .procreate .iff .lbm .wbmp .bigtiff .heics .avifs"
)
UNREAD_SUFFIXES = frozenset(f"{_FILMS} {_RAW_PHOTOS} {_PICTURES}".split())
"""Lower-case endings of films, raw photos and pictures that are not read."""

# Other names for formats that are read: the first bytes say whether it is one.
_RARE = frozenset({".dib", ".jif", ".jfi", ".jps", ".pns", ".pjpeg", ".pjp", ".jpg2", ".jpm", ".icb", ".vda", ".vst"})
# What programs write while a file is still on its way; its name changes when it is whole.
_UNFINISHED = frozenset({".part", ".partial", ".crdownload", ".download", ".filepart", ".opdownload", ".aria2"})
_BACKUPS = frozenset({".bak", ".old", ".orig", ".backup", ".copy", ".original"})
_WORD = re.compile(r"\.(?!\d+$)[a-z0-9]{1,10}")
_HEAD = 512

FileKind = Literal["picture", "unread", "look", "other"]


def kind_by_name(name: str) -> FileKind:
    """What a file is, by its name alone.

    Args:
        name: A file name or path.

    Returns:
        `picture` for the endings of pictures, and of other kinds, that are read; `unread` for those of films, raw
        photos and pictures that are not; `look` where only the first bytes can say it: no ending, or an odd one such
        as `.jpg!` or `.jpg.1`; `other` for all else, such as texts.

    Example:
        >>> [kind_by_name(name) for name in ("a.JPG", "a.mp4", "a", "a.jpg:large", "a.txt")]
        ['picture', 'unread', 'look', 'look', 'other']
    """
    stem, ending = os.path.splitext(os.path.basename(name))  # noqa: PTH119, PTH122 - a hot path
    ending = ending.lower()
    if is_read(ending):
        return "picture"
    if ending in UNREAD_SUFFIXES:
        return "unread"
    if ending in _UNFINISHED:
        return "unread" if kind_by_name(stem) != "other" and "." in stem else "other"
    if ending in _RARE or (ending in _BACKUPS and kind_by_name(stem) == "picture"):
        return "look"
    return "other" if _WORD.fullmatch(ending) else "look"


def ending_of(name: str) -> str:
    """The ending by which a file that is not read is counted.

    Args:
        name: A file name or path.

    Returns:
        The ending, lower-case, with its dot; empty where there is none.
    """
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a hot path


def begins_as_picture(path: str) -> bool:
    """Whether a file begins as a picture does; only its first bytes are read.

    Args:
        path: A regular file.

    Returns:
        True where `sniff` knows the format.

    Raises:
        OSError: It cannot be read.
    """
    # A pipe that took the file's place meanwhile must not hold the run.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        head = os.read(descriptor, _HEAD)
    finally:
        os.close(descriptor)
    return bool(head) and sniff(head, path) is not None


def is_picture(path: str) -> bool:
    """Whether a file is taken for a picture: by its name, or by its first bytes where the name says nothing.

    Args:
        path: A regular file.

    Returns:
        True for a picture; False for what is none, or cannot be read to find out.
    """
    kind = kind_by_name(path)
    if kind != "look":
        return kind == "picture"
    try:
        return begins_as_picture(path)
    except OSError:
        return False
