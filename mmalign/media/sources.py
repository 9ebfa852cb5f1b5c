"""Sources of items: a folder, a table, a list of paths, a glob pattern, a single picture, or Python values."""

from __future__ import annotations

import codecs
import difflib
import glob
import itertools
import os
import stat
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from mmalign.errors import InputError, SourceError
from mmalign.media.csv_tables import is_csv_header
from mmalign.media.embedded import parse_embedded
from mmalign.media.exclusion import Exclusion, Pattern
from mmalign.media.file_kinds import ending_of, is_picture, kind_by_name
from mmalign.media.folders import COLLECTION_SUFFIX, natural_key, picture_items, scan_folder, walk_folder
from mmalign.media.formats import IMAGE_SUFFIXES
from mmalign.media.locating import Locator, on_disk
from mmalign.media.reading import os_reason
from mmalign.media.rows import item_from_row
from mmalign.media.table_text import open_table_text
from mmalign.media.tables import TABLE_SUFFIXES, read_table, table_suffix
from mmalign.media.token_tables import is_token_line
from mmalign.media.uris import is_url, path_to_uri, to_uri, uri_to_path
from mmalign.types import Item, Note, Skip, Unread

SourceEntry = Item | Skip | Note | Unread
"""What a source yields."""

_LIST_SUFFIXES = frozenset({".txt", ".lst"})
_CHUNK = 1 << 16
_LONGEST_NAME = 255
# What people try next, and the way from there to something that is read.
_OTHER_FORMATS = {
    **dict.fromkeys(
        (".tar", ".tgz"), "an archive (of WebDataset, perhaps), which is not read; unpack it: tar -xf FILE"
    ),
    **dict.fromkeys((".zip", ".7z", ".rar"), "an archive, which is not read; unpack it and index the folder"),
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), "a workbook, which is not read; save the sheet as CSV UTF-8"),
    **dict.fromkeys(
        (".arrow", ".feather", ".ipc"),
        "an Arrow file, which is not read; save it as Parquet, with "
        "pyarrow.parquet.write_table(pyarrow.feather.read_table(FILE), 'table.parquet')",
    ),
    **dict.fromkeys((".zst", ".lz4", ".br"), "compressed in a way that is not read; unpack it, or use gzip"),
    **dict.fromkeys((".sqlite", ".sqlite3", ".db", ".duckdb"), "a database, which is not read; export a CSV"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".npz", ".npy", ".h5", ".hdf5"), "no table; save it as Parquet or CSV"),
    **dict.fromkeys(
        (".xml", ".yaml", ".yml", ".orc", ".avro"), "no table that is read; save it as Parquet, CSV or JSON"
    ),
    **dict.fromkeys((".pdf", ".docx", ".html", ".htm"), "a document, which is not read; save its pictures to a folder"),
}
_KINDS = (
    f"a folder, a table ({', '.join(sorted(TABLE_SUFFIXES))}), a list of paths ({', '.join(sorted(_LIST_SUFFIXES))}), "
    "a picture, a glob pattern, or - for paths on standard input"
)


def open_source(
    source: Any,
    *,
    metadata: Mapping[str, Any] | None = None,
    stdin: IO[bytes] | None = None,
    exclusion: Exclusion | None = None,
) -> Generator[SourceEntry, None, None]:
    """Open a source of items; what is wrong with the source as a whole is raised here and now.

    A picture that is given by its path alone has the lines of the `.txt` file of the same name as captions. Relative
    paths start from the folder of the table or list that holds them, else from the working folder. Whether the
    pictures of a table or a list are there is not looked at.

    Args:
        source: A path (folder, table, list of paths, picture), a glob pattern, an http(s) URL of a picture, "-", or
            an iterable of paths, `Item`s and mappings with the columns of a table.
        metadata: Columns for every item; an item's own values come first.
        stdin: Where "-" reads paths from, separated by newlines or NULs; standard input where None.
        exclusion: What stays out, and counts it; None for what stays out by default.

    Returns:
        A generator of an `Item` for each picture, in a fixed order; a `Skip` for what cannot be used; a `Note` on what
        else should be known; at the end, an `Unread` for each kind of file that looks like media and is not read, and
        a `Note` of what stayed out. A file's name as it is on disk becomes its URI, whatever Unicode form it was given
        in.

    Raises:
        SourceError: There is no such source, it cannot be read, or it holds no item.
    """
    if exclusion is None:
        exclusion = exclusion_of(source)
    items = _dispatch(source, stdin, exclusion)
    try:
        first = next(items)
    except StopIteration:
        left_out = "".join(f"; {note}" for note in exclusion.notes())
        raise SourceError(f"{source!r:.200} holds no item{left_out}") from None
    return _resume(first, items, dict(metadata or {}), exclusion)


def source_folder(source: Any) -> Path | None:
    """The folder that all files of a source are expected in.

    Args:
        source: What `open_source` takes.

    Returns:
        The folder itself, the folder of a table, list or picture, or what a glob pattern starts with; None for
        standard input, a URL, or Python values.
    """
    if not isinstance(source, str | os.PathLike) or source == "-" or (isinstance(source, str) and is_url(source)):
        return None
    path = _absolute(os.fspath(source))
    if _is_folder(path):
        return Path(path).resolve()
    if os.path.isfile(path):  # noqa: PTH113 - see `_is_folder`
        return Path(path).parent.resolve()
    return Path(_glob_base(path)[0]).resolve() if glob.has_magic(path) else None


def source_base(source: Any) -> str | None:
    """The folder that patterns of what stays out are relative to.

    Args:
        source: What `open_source` takes.

    Returns:
        As `source_folder`; for standard input and Python values the working folder, None for a URL.
    """
    folder = source_folder(source)
    if folder is None and not (isinstance(source, str) and is_url(source)):
        return str(Path.cwd())
    return None if folder is None else str(folder)


def exclusion_of(source: Any, patterns: Sequence[Pattern] = ()) -> Exclusion:
    """What stays out of a source.

    Args:
        source: What `open_source` takes.
        patterns: What was said with `--exclude`.

    Returns:
        For `open_source`.
    """
    walked = isinstance(source, str | os.PathLike) and _is_folder(_absolute(os.fspath(source)))
    return Exclusion(source_base(source), patterns, walked=walked)


def default_collection_path(source: Any) -> Path | None:
    """Where the collection of a source goes by default.

    Args:
        source: What `open_source` takes.

    Returns:
        For a folder, its resolved path with `.mm` added, beside it; None for everything else.
    """
    if not isinstance(source, str | os.PathLike) or source == "-":
        return None
    path = _absolute(os.fspath(source))
    if not _is_folder(path):
        return None
    folder = Path(path).resolve()
    if not folder.name or folder.suffix.lower() == COLLECTION_SUFFIX:
        return None
    return folder.with_name(folder.name + COLLECTION_SUFFIX)


def _resume(
    first: SourceEntry, rest: Iterator[SourceEntry], metadata: dict[str, Any], exclusion: Exclusion
) -> Generator[SourceEntry, None, None]:
    entry: SourceEntry | None = first
    while entry is not None:
        if metadata and isinstance(entry, Item):
            entry = replace(entry, metadata={**metadata, **entry.metadata})
        yield entry
        entry = next(rest, None)
    yield from exclusion.notes()


def _kept(items: Iterator[SourceEntry], exclusion: Exclusion) -> Iterator[SourceEntry]:
    """What a table or Python values name, without what was excluded by the user."""
    if not exclusion.holds_patterns:
        yield from items
        return
    for entry in items:
        here = isinstance(entry, Item) and parse_embedded(entry.uri) is None
        path = uri_to_path(entry.uri) if isinstance(entry, Item) and here else None
        if path is None or not exclusion.leaves_out_deep(str(path), listed=False):
            yield entry


def _with_source(table: Path, items: Iterator[SourceEntry]) -> Iterator[SourceEntry]:
    """The items of a table, each with the table as its source."""
    uri = path_to_uri(table)
    for entry in items:
        yield replace(entry, source=uri) if isinstance(entry, Item) else entry


def _dispatch(source: Any, stdin: IO[bytes] | None, exclusion: Exclusion) -> Iterator[SourceEntry]:
    if isinstance(source, bytes):
        source = os.fsdecode(source)
    if isinstance(source, Item | Mapping):
        return _values([source], exclusion)
    if not isinstance(source, str | os.PathLike):
        # An array without a dimension says that it can be gone through, and cannot.
        if isinstance(source, Iterable) and getattr(source, "ndim", 1) != 0:
            return _values(source, exclusion)
        raise SourceError(f"expected {_KINDS}, or an iterable; got {type(source).__name__}")
    text = os.fspath(source)
    if text == "-":
        stream = sys.stdin.buffer if stdin is None else stdin
        return _listed(stream, exclusion, name="standard input", locator=Locator(str(Path.cwd())))
    if not text.strip():
        raise SourceError(f"the source is empty; expected {_KINDS}")
    if is_url(text) or parse_embedded(text) is not None:
        return iter([Item(to_uri(text))])
    local = uri_to_path(text)
    if local is None:
        raise SourceError(f"{text!r} cannot be read: only paths, file:// URIs and http(s) URLs can")
    path = _absolute(str(local))
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if glob.has_magic(path):
            return _matches(path, exclusion)
        raise SourceError(_not_found(path)) from None
    except (OSError, ValueError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise SourceError(f"{text!r} cannot be read: {reason}") from error
    if stat.S_ISDIR(mode):
        return _folder(os.path.realpath(path), exclusion)
    if not stat.S_ISREG(mode):
        raise SourceError(f"{path_to_uri(path)} is neither a folder nor a regular file; expected {_KINDS}")
    return _file(Path(path), exclusion)


def _absolute(text: str) -> str:
    """The path of a source as the disk spells it, where it is there."""
    local = uri_to_path(text)
    # Not pathlib: it resolves links, and raises on a "~name" that is no user.
    path = os.path.abspath(os.path.expanduser(text if local is None else local))  # noqa: PTH100, PTH111
    return on_disk(path) or path


def _is_folder(path: str) -> bool:
    # Not pathlib: it raises where permission is denied.
    return os.path.isdir(path)  # noqa: PTH112


def _file(path: Path, exclusion: Exclusion) -> Iterator[SourceEntry]:
    path = path.parent.resolve() / path.name
    suffix = path.suffix.lower()
    if table_suffix(path.name):
        return _kept(_with_source(path, read_table(path)), exclusion)
    if suffix in _LIST_SUFFIXES:
        table = _table_in_text(path)
        if table is None:
            return _list_file(path, exclusion)
        return _kept(_with_source(path, read_table(path, suffix=table)), exclusion)
    way_out = _OTHER_FORMATS.get(suffix)
    if way_out is not None:
        raise SourceError(f"{path_to_uri(path)} is {way_out}")
    if is_picture(str(path)):
        return _picture(path, exclusion)
    raise SourceError(f"{path_to_uri(path)} ends in {suffix!r}, which is no kind of source; expected {_KINDS}")


def _picture(path: Path, exclusion: Exclusion) -> Iterator[SourceEntry]:
    if not exclusion.leaves_out_deep(str(path)):
        yield from picture_items(str(path))


def _table_in_text(path: Path) -> str | None:
    """The suffix of the table that a text holds, such as Flickr8k's `captions.txt`; None where it lists paths."""
    try:
        with open_table_text(path, path_to_uri(path)) as file:
            line = next((line for line in iter(lambda: file.readline(_CHUNK), "") if line.strip()), "")
    except (SourceError, OSError, UnicodeError):
        # Whoever reads it as a list will say what is wrong with it.
        return None
    if os.path.lexists(path.parent / line.rstrip("\r\n")[:_LONGEST_NAME]):
        return None
    return ".token" if is_token_line(line) else ".csv" if is_csv_header(line) else None


def _list_file(path: Path, exclusion: Exclusion) -> Iterator[SourceEntry]:
    name = path_to_uri(path)
    try:
        with path.open("rb") as stream:
            yield from _listed(stream, exclusion, name=name, locator=Locator(str(path.parent), folders=True))
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {os_reason(error)}") from error


def _folder(root: str, exclusion: Exclusion) -> Iterator[SourceEntry]:
    name = path_to_uri(root)
    if root.lower().endswith(COLLECTION_SUFFIX):
        raise SourceError(f"{name} is a collection, not a source; give the folder of pictures that it was made from")
    try:
        names = [entry.name for entry in Path(root).iterdir()]
    except OSError as error:
        raise SourceError(f"{name} cannot be listed: {os_reason(error)}") from error
    empty = True
    unread: list[Unread] = []
    for entry in scan_folder(root, exclusion):
        if isinstance(entry, Unread):
            unread.append(entry)
            continue
        empty = False
        yield entry
    if empty:
        tables = [entry for entry in names if table_suffix(entry)]
        hint = f"; to use a table, name it: {', '.join(sorted(tables)[:3])}" if tables else ""
        endings = " ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(
            f"no picture in {name} or its subfolders (names ending in {endings} are looked for)"
            f"{_noted(unread)}{''.join(f'; {note}' for note in exclusion.notes())}{hint}"
        )
    yield from unread


def _noted(unread: Iterable[Unread]) -> str:
    counts = ", ".join(f"{one.count:,} {one.ending}" for one in unread)
    return f"; not read: {counts}" if counts else ""


def _not_found(path: str) -> str:
    folder, name = os.path.split(path)
    while folder and not _is_folder(folder):
        folder, name = os.path.split(folder)
    try:
        beside = [entry.name for entry in Path(folder).iterdir()]
    except OSError:
        beside = []
    folded = {entry.casefold(): entry for entry in beside}
    near = [folded[entry] for entry in difflib.get_close_matches(name.casefold(), folded, n=3)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"{path_to_uri(folder)} holds no name like it"
    return f"{path_to_uri(path)} does not exist: no {name!r} in {path_to_uri(folder)}; {hint}"


def _glob_base(pattern: str) -> tuple[str, list[str]]:
    """The folder that a pattern starts with, and the parts of the pattern from the first wildcard on."""
    parts = Path(pattern).parts
    wild = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    return str(Path(*parts[:wild])), list(parts[wild:])


def _matches(pattern: str, exclusion: Exclusion) -> Iterator[SourceEntry]:
    base, parts = _glob_base(pattern)
    base = os.path.realpath(base)
    found = pictures = 0
    unread: Counter[str] = Counter()
    tables: list[str] = []
    if "**" in parts:
        # The folder scan, unlike glob's own "**", is safe from loops of links.
        for name, entry in walk_folder(base, exclusion) if _is_folder(base) else ():
            if not _fits(Path(name).relative_to(base).parts, parts):
                continue
            found += 1
            if isinstance(entry, Unread):
                unread[entry.ending] += entry.count
            else:
                pictures += 1
                yield entry
    else:
        paths = glob.glob(str(Path(glob.escape(base), *parts)))  # noqa: PTH207 - it is absolute
        for name in sorted(paths, key=lambda path: [natural_key(part) for part in Path(path).parts]):
            found += 1
            kind = kind_by_name(name)
            if table_suffix(name) and not _is_folder(name):
                tables.append(name)
            if kind == "other" or _is_folder(name) or exclusion.leaves_out_deep(name):
                continue
            if kind == "unread":
                unread[ending_of(name)] += 1
            elif kind == "picture" or is_picture(name):
                pictures += 1
                yield from picture_items(name)
    if tables and not pictures:
        # The parts of one data set, as in `train-*.parquet`.
        for name in tables:
            yield from _file(Path(name), exclusion)
        return
    if not pictures:
        what = f"{pattern!r} matches {found} name{'s' * (found > 1)}, but no picture"
        left_out = _noted(itertools.starmap(Unread, unread.most_common()))
        left_out += "".join(f"; {note}" for note in exclusion.notes())
        raise SourceError(
            f"{what}{left_out}" if found else f"nothing matches {pattern!r}; in a shell, put the pattern in quotes"
        )
    yield from itertools.starmap(Unread, unread.most_common())


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return _fits(names, parts[1:]) or (bool(names) and _fits(names[1:], parts))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _listed(stream: IO[bytes], exclusion: Exclusion, *, name: str, locator: Locator) -> Iterator[SourceEntry]:
    empty = True
    for line in _split(stream):
        text = os.fsdecode(line)
        if not text.strip():
            continue
        empty = False
        yield from _given(text, locator, name, exclusion)
    if empty:
        raise SourceError(f"{name} names no path; expected paths separated by newlines or NULs")


def _split(stream: IO[bytes]) -> Iterator[bytes]:
    """The pieces of a stream between newlines, or between NULs where its beginning has one."""
    separator = b""
    rest = b""
    # A raw stream has none, and gives what is there by itself.
    read = getattr(stream, "read1", stream.read)
    begun = False
    while chunk := read(_CHUNK):
        rest += chunk
        if not begun:
            if any(mark.startswith(rest) for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                continue
            begun = True
            rest = rest.removeprefix(codecs.BOM_UTF8)
            if rest.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                # What Windows' PowerShell writes: no path has these bytes.
                text = (rest + stream.read()).decode("utf-16", "replace")
                yield from (os.fsencode(line) for line in text.splitlines())
                return
        if not separator:
            separator = b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else b""
        if separator:
            *whole, rest = rest.split(separator)
            yield from (line.removesuffix(b"\r") if separator == b"\n" else line for line in whole)
    if rest:
        yield rest


def _given(text: str | os.PathLike[str], locator: Locator, about: str, exclusion: Exclusion) -> Iterator[SourceEntry]:
    try:
        uri = locator.uri(text)
    except InputError as error:
        yield Skip(repr(text), str(error))
        return
    yield from (Note(remark, about=about) for remark in locator.notes())
    path = None if parse_embedded(uri) is not None else uri_to_path(uri)
    if path is None:
        yield Item(uri)
    elif exclusion.leaves_out_deep(str(path)):
        return
    elif kind_by_name(str(path)) == "unread":
        yield Unread(ending_of(str(path)))
    else:
        yield from picture_items(str(path))


def _values(values: Iterable[Any], exclusion: Exclusion) -> Iterator[SourceEntry]:
    base = str(Path.cwd())
    locator = Locator(base)
    for position, value in enumerate(values):
        about = f"item {position}"
        match value:
            case Skip() | Note():
                yield value
            case Item():
                item = replace(value, uri=locator.uri(value.uri), source=value.source or "rows")
                yield from _kept(iter([item]), exclusion)
            case str() | os.PathLike():
                yield from _given(value, locator, about, exclusion)
            case Mapping():
                try:
                    item = item_from_row(value, base=base, place=about, locator=locator)
                    yield from _kept(iter([replace(item, source="rows")]), exclusion)
                except SourceError as error:
                    yield Skip(about, str(error))
            case _:
                raise SourceError(
                    f"item {position} is {type(value).__name__}; expected a path, a URL, an Item or a mapping with a "
                    "path; save pictures to files first"
                )
        yield from (Note(remark, about=about) for remark in locator.notes())
