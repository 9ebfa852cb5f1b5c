"""Settling how metadata goes into a store's columns before anything is changed: names, types, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mmalign.errors import MetadataError
from mmalign.store.columns import TEXT, WIDER, MisfitError, fit, infer_type, misfit, type_of
from mmalign.store.names import GIVEN, column_names, renamed


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A cell that does not fit its column.

    Attributes:
        row: Its row.
        name: What the source calls the column.
        text: Which column holds what, and what came.
        remedy: What to do.
    """

    row: int
    name: Any
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Settled:
    """How rows of metadata go into columns.

    Attributes:
        rows: The rows by column; the values are such as their columns hold exactly.
        new: Columns that the store lacks.
        recast: Columns that must take another type, by name.
        renamed: Names that are kept as another one.
        left_out: Cells that fit nowhere; `rows` lack them.
    """

    rows: list[dict[str, Any]]
    new: pa.Schema
    recast: Mapping[str, pa.DataType]
    renamed: Mapping[str, str]
    left_out: Sequence[LeftOut]

    @property
    def columns(self) -> set[str]:
        """The columns that some row has a value for."""
        return {name for row in self.rows for name in row}


def settle(
    rows: Sequence[Mapping[Any, Any]],
    schema: pa.Schema,
    *,
    may_widen: Callable[[str, pa.DataType], bool],
    as_text: Collection[str] = (),
) -> Settled:
    """Settle which column each value goes into and what type that must have; nothing is changed.

    Args:
        rows: Plain values by the source's names.
        schema: The store's columns.
        may_widen: Whether all that a column of the store holds can be held as another type.
        as_text: Names of columns that are to be text.

    Returns:
        What is to be done. A column whose values are all None is not made.

    Raises:
        MetadataError: A name is no text, or `as_text` has a name that nothing has.
    """
    values: dict[Any, list[tuple[int, Any]]] = {name: [] for name in as_text}
    for number, row in enumerate(rows):
        for name, value in row.items():
            values.setdefault(name, []).append((number, value))
    columns = column_names(values, schema)
    done: list[dict[str, Any]] = [{} for _ in rows]
    new, recast, left_out = [], {}, []
    for name, cells in values.items():
        column = columns[name]
        there = schema.field(column).type if column in schema.names else None
        kind = TEXT if name in as_text else _type(column, there, [value for _, value in cells], may_widen)
        if kind is None:
            continue
        if there is None and not cells:
            raise MetadataError(f"no column is called {name!r}, and the source has none of that name")
        if there is None:
            new.append(pa.field(column, kind, metadata={GIVEN: str(name).encode("utf-8", "surrogatepass")}))
        elif kind != there:
            recast[column] = kind
        for number, value in cells:
            try:
                done[number][column] = fit(value, kind)
            except MisfitError:
                left_out.append(LeftOut(number, name, *misfit(column, kind, value)))
    kept = {name: columns[name] for name in values if columns[name] in schema.names or _named(new, columns[name])}
    return Settled(done, pa.schema(new), recast, renamed(kept), sorted(left_out, key=lambda cell: cell.row))


def _named(fields: Iterable[pa.Field], name: str) -> bool:
    return any(field.name == name for field in fields)


def _type(
    column: str, there: pa.DataType | None, values: Sequence[Any], may_widen: Callable[[str, pa.DataType], bool]
) -> pa.DataType | None:
    """The type that a column must have for these values: its own, or a wider one where all before can be held so."""
    if there is None:
        return infer_type(values)
    wider = WIDER.get(there)
    if wider is None:
        return there
    held = []
    for value in values:
        try:
            held.append(fit(value, there))
            continue
        except MisfitError:
            pass
        if not isinstance(value, str) and type_of(value) != wider:
            continue
        try:
            fit(value, wider)
            for before in held:
                fit(before, wider)
        except MisfitError:
            continue
        return wider if may_widen(column, wider) else there
    return there


def check_settled(settled: Settled, place: Callable[[int], str]) -> None:
    """Refuse what does not fit, naming the first.

    Args:
        settled: What `settle` returned.
        place: Says which row it is, for people.

    Raises:
        MetadataError: Some value does not fit.
    """
    if settled.left_out:
        first = settled.left_out[0]
        raise MetadataError(f"{place(first.row)}: {first.text}; {first.remedy}")
