"""Names of metadata as names of columns, by one rule, so that no name is refused and no two share a column.

A dot, a backtick, a quotation mark, an asterisk and whatever does not print become `_`; `_` at the beginning and space
at both ends are taken away, and a name of nothing becomes `column`. A name that the store keeps itself gets `_` behind
it, and one that is taken, or differs from one that is by case alone, `_2`, `_3` and so on. The name that was given is
kept with the column, and means that column ever after.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa

from mmalign.errors import MetadataError

# What the store keeps of every item itself.
RESERVED = frozenset(
    {"id", "uri", "sha256", "kind", "width", "height", "bytes", "mtime_ns", "said", "captions", "embedding"}
    | {"_embedding_checksum", "_checksum"}
)
GIVEN = b"mmalign:name"
"""In the metadata of a field: the name that was given."""
SIZE = b"mmalign:size"
"""In the metadata of a field: the size that it holds, as `sizes` tells; no metadata goes there."""

_REPLACED = re.compile(r"[.`\"'*]")


def clean_name(name: str) -> str:
    """Return a name as a column may have it, before it is compared with those that are taken.

    Args:
        name: Any text.

    Returns:
        Printable text, composed as Unicode's NFC, without dots, backticks, quotation marks and asterisks, that does
        not begin with `_`.
    """
    composed = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    printable = "".join(sign if sign.isprintable() else "_" for sign in _REPLACED.sub("_", composed))
    return printable.strip().lstrip("_").strip() or "column"


def given_names(schema: pa.Schema) -> dict[str, str]:
    """Return the names that columns were given under, by column; those that no name is kept of are left out."""
    return {
        field.name: field.metadata[GIVEN].decode("utf-8", "surrogatepass")
        for field in schema
        if GIVEN in (field.metadata or {})
    }


def renamed_columns(schema: pa.Schema) -> dict[str, str]:
    """Return the columns that are kept under another name than was given, the given name to the column."""
    return {given: column for column, given in given_names(schema).items() if given != column}


def column_names(names: Iterable[object], schema: pa.Schema | None = None) -> dict[object, str]:
    """Return the column of each name.

    Args:
        names: What metadata is called in one source: text or integers, each once.
        schema: The columns that there are.

    Returns:
        Each name's column, different for each.

    Raises:
        MetadataError: A name is neither text nor an integer.
    """
    wanted: dict[object, str] = {}
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise MetadataError(f"a column's name must be text, got {name!r}")
        if str(name) in wanted.values():
            raise MetadataError(f"two columns are called {str(name)!r}, one by a text and one by an integer")
        wanted[name] = str(name)
    known = pa.schema([]) if schema is None else schema
    given = {name: column for column, name in given_names(known).items()}
    own = {field.name for field in known if SIZE not in (field.metadata or {})} - RESERVED
    unnamed = own - set(given.values())
    found: dict[object, str] = {name: given[text] for name, text in wanted.items() if text in given}
    for name, text in wanted.items():
        if name not in found and text in own and text not in found.values():
            found[name] = text
    # Those that can keep their name choose first, whatever their order.
    taken = {_fold(name) for name in (*known.names, *RESERVED)}

    def keeps(text: str) -> bool:
        return clean_name(text) == text and _fold(text) not in RESERVED

    rest = sorted(
        (name for name in wanted if name not in found), key=lambda name: (not keeps(wanted[name]), wanted[name])
    )
    for name in rest:
        base = clean_name(wanted[name])
        # Written by an earlier mmalign, which did not keep the name that was given.
        old = f"{base}_"
        if wanted[name] in RESERVED and old in unnamed and old not in found.values():
            found[name] = old
            continue
        found[name] = _free(base, taken | {_fold(column) for column in found.values()})
    return found


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return a column for a name, by the same rule, that no other column has.

    Args:
        name: Any text.
        taken: The columns that there are.
    """
    return _free(clean_name(name), {_fold(column) for column in taken})


def _free(base: str, taken: Collection[str]) -> str:
    if _fold(base) not in taken:
        return base
    candidates = [f"{base}_"] if base.lower() in RESERVED else []
    number = 2
    while True:
        for candidate in candidates:
            if _fold(candidate) not in taken:
                return candidate
        candidates, number = [f"{base}_{number}"], number + 1


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def renamed(columns: Mapping[object, str]) -> dict[str, str]:
    """Return those of `column_names` that are not what was given."""
    return {str(name): column for name, column in columns.items() if str(name) != column}
