from __future__ import annotations

import pyarrow as pa
import pytest

from mmalign.errors import MetadataError
from mmalign.store.item_columns import base_schema
from mmalign.store.names import GIVEN, RESERVED, column_names, renamed, renamed_columns


def schema(**given: str | None) -> pa.Schema:
    fields = [pa.field(name, pa.int64(), metadata=None if of is None else {GIVEN: of}) for name, of in given.items()]
    return pa.schema([*base_schema(4), *fields])


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("label", "label"),
        ("a b", "a b"),
        ("select", "select"),
        ("größe", "größe"),
        ("日本", "日本"),
        ("a/b", "a/b"),
        ("width", "width_"),
        ("ID", "ID_"),
        ("id", "id_"),
        ("exif.iso", "exif_iso"),
        ("a`b", "a_b"),
        ('a"b', "a_b"),
        ("a'b", "a_b"),
        ("*", "column"),
        ("_split", "split"),
        ("_rowid", "rowid"),
        ("__index_level_0__", "index_level_0__"),
        ("a\nb", "a_b"),
        ("a\0b", "a_b"),
        (" a ", "a"),
        ("", "column"),
        ("  ", "column"),
        ("._.", "column"),
        ("\ud83d", "?"),
        ("e\u0301", "\u00e9"),
        (7, "7"),
    ],
)
def test_one_rule_for_every_name(name: object, column: str) -> None:
    assert column_names([name], schema()) == {name: column}


def test_no_two_names_share_a_column() -> None:
    names = ["exif.iso", "exif_iso", "exif`iso", "EXIF.ISO", "width", "width_", "id", "e\u0301", "\u00e9", "", " ", "_"]
    found = column_names(names, schema())
    folded = [column.casefold() for column in found.values()]
    assert len(set(folded)) == len(names)
    assert not {*folded} & RESERVED
    assert found["exif_iso"] == "exif_iso", "a name that can stay stays, whatever the order"
    assert found["width_"] == "width_"
    assert column_names(["Year", "year"], schema()) == {"Year": "Year", "year": "year_2"}
    assert column_names(reversed(names), schema()) == found
    assert renamed(found) == {str(name): column for name, column in found.items() if name != column}


def test_a_name_means_the_same_column_ever_after() -> None:
    known = schema(exif_iso="exif.iso", label="label", split=None)
    assert column_names(["exif.iso"], known) == {"exif.iso": "exif_iso"}
    assert column_names(["exif_iso"], known) == {"exif_iso": "exif_iso"}, "as the column is called"
    assert column_names(["exif_iso", "exif.iso"], known) == {"exif.iso": "exif_iso", "exif_iso": "exif_iso_2"}
    assert column_names(["split", "_split"], known) == {"split": "split", "_split": "split_2"}
    assert column_names(["Label"], known) == {"Label": "Label_2"}
    assert renamed_columns(known) == {"exif.iso": "exif_iso"}


def test_columns_of_earlier_versions_are_found_again() -> None:
    old = schema(width_=None)
    assert column_names(["width"], old) == {"width": "width_"}
    assert column_names(["width", "width_"], old) == {"width_": "width_", "width": "width_2"}


@pytest.mark.parametrize("name", [None, 1.5, True, b"x", ("a",)])
def test_what_is_no_name(name: object) -> None:
    with pytest.raises(MetadataError, match="a column's name must be text"):
        column_names([name])


def test_one_name_twice() -> None:
    with pytest.raises(MetadataError, match="two columns are called '1'"):
        column_names([1, "1"])


def test_what_the_store_keeps_is_reserved() -> None:
    assert {*base_schema(4).names} <= RESERVED
