"""Settling how metadata goes into a store's columns before anything is changed: names, types, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mmalign.errors import MetadataError
from mmalign.store.columns import TEXT, WIDER, Inferring, MisfitError, fit, fits, misfit, type_of
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
class Columns:
    """Which column each name's values go into.

    Attributes:
        kinds: Column and type by the source's name, without the names whose values are all None.
        new: Columns that the store lacks.
        recast: Columns that must take another type, by name.
        renamed: Names that are kept as another one.
    """

    kinds: Mapping[Any, tuple[str, pa.DataType]]
    new: pa.Schema
    recast: Mapping[str, pa.DataType]
    renamed: Mapping[str, str]

    def fit(self, rows: Sequence[Mapping[Any, Any]]) -> tuple[list[dict[str, Any]], list[LeftOut]]:
        """Fit rows of metadata to the columns.

        Args:
            rows: Plain values by the source's names.

        Returns:
            `(rows, left_out)`: the rows by column, with values such as their columns hold exactly; and cells that fit
            nowhere, which the rows lack.
        """
        done, left_out = [], []
        for number, row in enumerate(rows):
            fitted = {}
            for name, (column, kind) in self.kinds.items():
                if name not in row:
                    continue
                try:
                    fitted[column] = fit(row[name], kind)
                except MisfitError:
                    left_out.append(LeftOut(number, name, *misfit(column, kind, row[name])))
            done.append(fitted)
        return done, left_out


@dataclass(frozen=True, slots=True)
class Settled:
    """How rows of metadata go into columns.

    Attributes:
        columns: The columns.
        rows: The rows by column; the values are such as their columns hold exactly.
        left_out: Cells that fit nowhere; `rows` lack them.
    """

    columns: Columns
    rows: list[dict[str, Any]]
    left_out: Sequence[LeftOut]

    @property
    def renamed(self) -> Mapping[str, str]:
        """Names that are kept as another one."""
        return self.columns.renamed


class _Widening:
    """Whether values ask for the wider type of a column that is there, told from them one by one."""

    def __init__(self, there: pa.DataType) -> None:
        self._there, self._wider = there, WIDER[there]
        self._fit_wider = True
        self.asked = False

    def see(self, value: Any) -> None:
        if self.asked:
            return
        if fits(value, self._there):
            self._fit_wider = self._fit_wider and fits(value, self._wider)
        elif (not isinstance(value, str) and type_of(value) != self._wider) or not self._fit_wider:
            return
        else:
            self.asked = fits(value, self._wider)


def choose_columns(
    names: Iterable[Any],
    rows: Iterable[Mapping[Any, Any]],
    schema: pa.Schema,
    *,
    may_widen: Callable[[str, pa.DataType], bool],
    as_text: Collection[str] = (),
) -> Columns:
    """Choose which column each value goes into and what type that must have; nothing is changed.

    Args:
        names: All names that some row has, each once.
        rows: Plain values by the source's names; gone through once, and only where the types depend on them.
        schema: The store's columns.
        may_widen: Whether all that a column of the store holds can be held as another type.
        as_text: Names of columns that are to be text.

    Returns:
        What is to be done. A column whose values are all None is not made.

    Raises:
        MetadataError: A name is no text, or `as_text` has a name that nothing has.
    """
    given = dict.fromkeys(names)
    in_order = dict.fromkeys([*as_text, *given])
    columns = column_names(in_order, schema)
    there = {name: schema.field(column).type if column in schema.names else None for name, column in columns.items()}
    for text in as_text:
        if there[text] is None and text not in given:
            raise MetadataError(f"no column is called {text!r}, and the source has none of that name")
    inferred = {name: Inferring() for name in given if there[name] is None and name not in as_text}
    widened = {name: _Widening(there[name]) for name in given if there[name] in WIDER and name not in as_text}
    watching: dict[Any, Inferring | _Widening] = {**inferred, **widened}
    for row in rows if watching else ():
        for name, value in row.items():
            if name in watching:
                watching[name].see(value)
    kinds: dict[Any, tuple[str, pa.DataType]] = {}
    new, recast = [], {}
    for name in in_order:
        column, before = columns[name], there[name]
        kind = TEXT if name in as_text else inferred[name].kind if name in inferred else before
        if name in widened and widened[name].asked and may_widen(column, WIDER[before]):
            kind = WIDER[before]
        if kind is None:
            continue
        kinds[name] = column, kind
        if before is None:
            new.append(pa.field(column, kind, metadata={GIVEN: str(name).encode("utf-8", "surrogatepass")}))
        elif kind != before:
            recast[column] = kind
    kept = {name: columns[name] for name in in_order if name in kinds or columns[name] in schema.names}
    return Columns(kinds, pa.schema(new), recast, renamed(kept))


def settle(
    rows: Sequence[Mapping[Any, Any]],
    schema: pa.Schema,
    *,
    may_widen: Callable[[str, pa.DataType], bool],
    as_text: Collection[str] = (),
) -> Settled:
    """Settle which column each value of some rows goes into, and fit it; nothing is changed.

    Args:
        rows: Plain values by the source's names.
        schema: The store's columns.
        may_widen: Whether all that a column of the store holds can be held as another type.
        as_text: Names of columns that are to be text.

    Returns:
        What is to be done.

    Raises:
        MetadataError: A name is no text, or `as_text` has a name that nothing has.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    columns = choose_columns(names, rows, schema, may_widen=may_widen, as_text=as_text)
    return Settled(columns, *columns.fit(rows))


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
