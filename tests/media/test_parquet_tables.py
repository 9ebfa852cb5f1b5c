"""Parquet as Hugging Face and pandas write it (by pyarrow), and the pictures that are stored in it."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from mmalign.errors import DecodeError, SourceError
from mmalign.media.decoding import decode_image
from mmalign.media.embedded import EmbeddedPicture, parse_embedded
from mmalign.media.images import Picture, load_pictures
from mmalign.media.reading import read_media
from mmalign.media.sources import open_source
from mmalign.media.tables import read_table
from mmalign.media.uris import path_to_uri, to_uri, uri_to_path
from mmalign.types import Item, Note, Skip
from tests.media.media_helpers import encode

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(level: int) -> bytes:
    return encode(Image.new("RGB", (5, 4), (level % 256, level // 256, 0)), "PNG")


def write(path: Path, columns: dict[str, Any], *, metadata: dict[str, Any] | None = None, **options: Any) -> Path:
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({key: json.dumps(value) for key, value in metadata.items()})
    parquet.write_table(table, path, **options)
    return path


def read(path: Path) -> tuple[list[Item], list[str], list[Skip]]:
    found = list(read_table(path))
    return (
        [entry for entry in found if isinstance(entry, Item)],
        [str(entry) for entry in found if isinstance(entry, Note)],
        [entry for entry in found if isinstance(entry, Skip)],
    )


# Stored pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row_group_size", [7, 1000])
@pytest.mark.parametrize("path", [None, "somewhere/x.png"])
def test_the_stored_bytes_of_hugging_face_are_read(row_group_size: int, path: str | None, tmp_path: Path) -> None:
    pictures = [{"bytes": png(n), "path": path} for n in range(50)]
    file = write(
        tmp_path / "train #1.parquet",
        {"image": pa.array(pictures, HF_IMAGE), "text": [f"caption {n}" for n in range(50)]},
        row_group_size=row_group_size,
    )
    items, notes, skips = read(file)
    assert [item.captions for item in items] == [(f"caption {n}",) for n in range(50)]
    assert [item.metadata for item in items] == [{} if path is None else {"image_path": path}] * 50
    assert (notes, skips) == ([], [])
    assert items[12].uri == f"file://{tmp_path}/train%20%231.parquet#image=12"
    assert [read_media(item.uri).data for item in items] == [png(n) for n in range(50)]
    # From behind, and far apart.
    for n in (49, 0, 48, 25, 24, 49):
        assert read_media(items[n].uri).data == png(n)
    assert decode_image(items[30].uri).image.getpixel((0, 0)) == (30, 0, 0)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("column", ["image", "image.bytes", "jpg", "content"])
def test_a_column_of_bytes_alone_is_told_by_its_bytes(kind: Any, column: str, tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {column: pa.array([png(0), None, png(2)], kind), "n": [1, 2, 3]})
    items, _, skips = read(file)
    assert [item.metadata for item in items] == [{"n": 1}, {"n": 3}]
    assert [read_media(item.uri).data for item in items] == [png(0), png(2)]
    assert [skip.uri for skip in skips] == [f"{file}#2"]
    alone = write(tmp_path / "alone.parquet", {column: pa.array([png(5), png(6)], kind)})
    assert [read_media(item.uri).data for item in read(alone)[0]] == [png(5), png(6)]


def test_where_there_are_no_bytes_the_path_is_taken(tmp_path: Path) -> None:
    pictures = [
        {"bytes": png(0), "path": "x.png"},
        {"bytes": None, "path": "b.png"},
        None,
        {"bytes": None, "path": None},
    ]
    file = write(tmp_path / "t.parquet", {"image": pa.array(pictures, HF_IMAGE), "id": [1, 2, 3, 4]})
    items, _, skips = read(file)
    assert [(item.id, item.uri) for item in items] == [("1", f"file://{file}#image=0"), ("2", f"{tmp_path}/b.png")]
    assert [skip.reason for skip in skips] == ["column 'image' is empty"] * 2
    paths = [{"bytes": None, "path": f"{n}.png"} for n in range(3)]
    features = {"huggingface": {"info": {"features": {"photo": {"_type": "Image"}}}}}
    file = write(tmp_path / "p.parquet", {"photo": pa.array(paths, HF_IMAGE), "n": [0, 1, 2]}, metadata=features)
    assert [item.uri for item in read(file)[0]] == [f"{tmp_path}/{n}.png" for n in range(3)]


def test_lists_of_pictures_are_an_item_each(tmp_path: Path) -> None:
    pictures = [[png(0), png(1)], [], [png(2)], None]
    columns = {"images": pa.array(pictures, pa.list_(pa.binary())), "id": ["a", "b", "c", "d"], "caption": list("abcd")}
    items, notes, skips = read(write(tmp_path / "t.parquet", columns))
    assert [(item.id, item.captions) for item in items] == [("a#0", ("a",)), ("a#1", ("a",)), ("c", ("c",))]
    assert [item.uri.rpartition("#")[2] for item in items] == ["images=0.0", "images=0.1", "images=2.0"]
    assert [read_media(item.uri).data for item in items] == [png(0), png(1), png(2)]
    assert notes == ["rows with several pictures: each has the row's id with its number behind"]
    assert [skip.uri.rpartition("#")[2] for skip in skips] == ["2", "4"]
    structs = pa.array([[{"bytes": png(7), "path": None}]], pa.list_(HF_IMAGE))
    items, _, _ = read(write(tmp_path / "s.parquet", {"images": structs}))
    assert [read_media(item.uri).data for item in items] == [png(7)]


def test_of_several_columns_of_pictures_one_is_read_and_the_others_are_told(tmp_path: Path) -> None:
    columns = {"mask": [png(9)], "image": [png(1)], "raw": [b"\0\1"]}
    items, notes, _ = read(write(tmp_path / "t.parquet", columns))
    assert [read_media(item.uri).data for item in items] == [png(1)]
    assert notes == [
        "column 'mask' holds pictures too, but only 'image' is read: it is left out",
        "column 'raw' holds bytes: it is left out",
    ]


def test_one_damaged_picture_costs_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {"image": [png(0), b"no picture", b"", png(3)[:40], png(4)]})
    items, _, _ = read(file)
    results = list(load_pictures(item.uri for item in items))
    assert [type(result) for result in results] == [Picture, Skip, Skip, Skip, Picture]
    assert [result.uri for result in results] == [item.uri for item in items]


def test_uris_of_stored_pictures_lead_back(tmp_path: Path) -> None:
    for name in ("a.parquet", "a b#c=1.parquet", "ü%20.parquet", os.fsdecode(b"\xff.parquet"), "new\nline.parquet"):
        for place in (
            EmbeddedPicture(tmp_path / name, "image", 0),
            EmbeddedPicture(tmp_path / name, "a.b=c#d/é", 10**12, 3),
        ):
            assert parse_embedded(place.uri) == place
            assert to_uri(place.uri) == place.uri
            assert to_uri(place.uri, base="/else") == place.uri
            assert uri_to_path(place.uri) == place.path
            assert place.uri.isprintable()
    # A path is never taken for one, whatever it is called.
    odd = tmp_path / "data.parquet#image=12"
    assert path_to_uri(odd) == str(odd)
    for uri in (str(odd), f"file://{tmp_path}/data.parquet%23image=12"):
        assert parse_embedded(uri) is None
        assert uri_to_path(uri) == odd


@pytest.mark.parametrize(
    ("fragment", "reason"),
    [
        ("image=3", "the file has 3 rows, but row 3 is asked for"),
        ("picture=0", "t.parquet has no column 'picture'"),
        ("image=1", "row 1 of column 'image' holds no bytes of a picture"),
        ("image=0.1", "row 0 of column 'image' holds no picture 1"),
        ("n=0", "row 0 of column 'n' holds no bytes of a picture"),
    ],
)
def test_a_uri_that_leads_nowhere_says_why(fragment: str, reason: str, tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {"image": [png(0), None, png(2)], "n": [1, 2, 3]})
    with pytest.raises(DecodeError) as caught:
        read_media(f"file://{file}#{fragment}")
    assert caught.value.reason == reason


def test_a_file_that_is_gone_or_no_parquet_says_so(tmp_path: Path) -> None:
    for content, reason in ((None, "not found"), (b"PAR1 nothing", "the Parquet file cannot be read")):
        if content is not None:
            (tmp_path / "t.parquet").write_bytes(content)
        with pytest.raises(DecodeError, match=reason):
            read_media(f"file://{tmp_path}/t.parquet#image=0")


def test_a_file_that_changes_is_read_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {"image": [png(1), png(2)]})
    uri = f"file://{file}#image=1"
    assert read_media(uri).data == png(2)
    write(file, {"image": [png(3), png(4), png(5)]})
    media = read_media(uri)
    assert media.data == png(4)
    assert (media.mtime_ns, media.file_bytes) == (file.stat().st_mtime_ns, file.stat().st_size)


def test_the_limit_on_bytes_counts_the_picture_not_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {"image": [png(n) for n in range(500)]})
    limit = len(png(7))
    assert file.stat().st_size > limit
    assert read_media(f"file://{file}#image=7", max_bytes=limit).data == png(7)
    with pytest.raises(DecodeError, match="too large"):
        read_media(f"file://{file}#image=7", max_bytes=limit - 1)


def test_threads_get_their_own_picture(tmp_path: Path, rng: np.random.Generator) -> None:
    file = write(tmp_path / "t.parquet", {"image": [png(n) for n in range(400)]}, row_group_size=90)
    wrong: list[int] = []

    def work(rows: np.ndarray[Any, Any]) -> None:
        wrong.extend(int(n) for n in rows if read_media(f"file://{file}#image={n}").data != png(int(n)))

    threads = [threading.Thread(target=work, args=(rng.integers(0, 400, 60),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stored_picture_may_be_named_in_lists_and_by_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {"image": [png(0), png(1)]})
    uri = f"file://{file}#image=1"
    (tmp_path / "l.txt").write_text(f"{uri}\n")
    (tmp_path / "t.csv").write_text(f"path,n\n{uri},5\n")
    for source in (uri, [uri], tmp_path / "l.txt", Item(uri)):
        assert list(open_source(source)) == [Item(uri)]
    assert list(open_source(tmp_path / "t.csv")) == [Item(uri, metadata={"n": 5})]


# Values ------------------------------------------------------------------------------------------------------------


def values(folder: Path, *cells: pa.Array, **options: Any) -> tuple[list[dict[str, Any]], list[str]]:
    columns = {"path": [f"{n}.png" for n in range(len(cells[0]))]} | {f"c{at}": cell for at, cell in enumerate(cells)}
    items, notes, skips = read(write(folder / "v.parquet", columns, **options))
    assert (skips, notes) == ([], [])
    return [dict(item.metadata) for item in items], [str(note) for item in items for note in item.left_out]


def test_the_types_of_arrow_are_read(tmp_path: Path) -> None:
    rows, notes = values(
        tmp_path,
        pa.array(["x", None]).dictionary_encode(),
        pa.array([1.5, float("nan")], pa.float32()),
        pa.array([Decimal("1.50"), None]),
        pa.array([{"a": {"b": [1, 2]}}, None]),
        pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        pa.array([["t"], []]),
        pa.array([2**63, 1], pa.uint64()),
        pa.array(["v", None], pa.string_view()),
        pa.array([None, None], pa.null()),
    )
    assert rows[0] == {
        "c0": "x", "c1": 1.5, "c2": 1.5, "c3": {"a": {"b": [1, 2]}}, "c4": {"k": 1}, "c5": ["t"], "c6": 2**63,
        "c7": "v", "c8": None,
    }  # fmt: skip
    assert rows[1] == {f"c{at}": {5: [], 6: 1}.get(at) for at in range(9)}
    assert notes == []


def test_times_in_nanoseconds_are_kept_where_a_microsecond_holds_them(tmp_path: Path) -> None:
    whole, fine = 1_577_934_245_123_456_000, 1_577_934_245_123_456_789
    rows, notes = values(
        tmp_path,
        pa.array([whole, fine], pa.timestamp("ns")),
        pa.array([whole, fine], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1_500_000_000, 1], pa.duration("ns")),
        pa.array([3_600_000_000_000, 123_456_789], pa.time64("ns")),
        pa.array([[whole], [whole, fine]], pa.list_(pa.timestamp("ns"))),
        pa.array([whole, None], pa.timestamp("ns")).dictionary_encode(),
        pa.array([-70_000_000_000_000_000, 0], pa.timestamp("us")),
        pa.array([0, 2**31 - 1], pa.date32()),
    )
    at = dt.datetime(2020, 1, 2, 3, 4, 5, 123456)
    assert rows[0] == {
        "c0": at, "c1": at.replace(tzinfo=dt.UTC), "c2": 1.5, "c3": "01:00:00", "c4": [at], "c5": at,
        "c7": dt.date(1970, 1, 1),
    }  # fmt: skip
    assert rows[1] == {"c2": 1e-9, "c3": "00:00:00.123456789", "c5": None, "c6": dt.datetime(1970, 1, 1)}
    assert [note.partition(", and")[0].partition("; ")[0] for note in notes] == [
        "column 'c6' holds a time about the year -249",
        "column 'c0' holds 2020-01-02T03:04:05.123456789",
        "column 'c1' holds 2020-01-02T03:04:05.123456789Z",
        "column 'c4' holds 2020-01-02T03:04:05.123456789",
        "column 'c7' holds a time about the year 5881580",
    ]


def test_pandas_index_without_a_name_is_renamed_as_pandas_does(tmp_path: Path) -> None:
    pandas = {"pandas": {"index_columns": ["__index_level_0__"], "columns": []}}
    columns = {"path": ["a.png", "b.png"], "n": [5, 6], "__index_level_0__": [17, 4]}
    items, notes, _ = read(write(tmp_path / "t.parquet", columns, metadata=pandas))
    assert [item.metadata for item in items] == [{"n": 5, "index": 17}, {"n": 6, "index": 4}]
    assert notes == ["pandas' index, which has no name, is kept as 'index'"]
    both = {"path": ["a.png"], "__index_level_0__": [1], "__index_level_1__": ["x"]}
    assert [item.metadata for item in read(write(tmp_path / "m.parquet", both))[0]] == [{"level_0": 1, "level_1": "x"}]
    taken = {"path": ["a.png"], "index": [9], "__index_level_0__": [1]}
    assert [item.metadata for item in read(write(tmp_path / "i.parquet", taken))[0]] == [{"index": 9, "level_0": 1}]


def test_class_labels_get_their_names_beside_their_numbers(tmp_path: Path) -> None:
    features = {
        "huggingface": {
            "info": {
                "features": {
                    "image": {"_type": "Image"},
                    "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
                    "text": {"dtype": "string", "_type": "Value"},
                }
            }
        }
    }
    columns = {"image": pa.array([{"bytes": png(n)} for n in range(4)], HF_IMAGE), "label": [1, 0, None, -1]}
    items, notes, _ = read(write(tmp_path / "t.parquet", columns, metadata=features))
    assert [item.metadata for item in items] == [
        {"label": 1, "label_name": "dog"},
        {"label": 0, "label_name": "cat"},
        {"label": None, "label_name": None},
        {"label": -1, "label_name": None},
    ]
    assert notes == ["column 'label' numbers classes; their names are in 'label_name'"]


def test_captions_in_lists_and_objects(tmp_path: Path) -> None:
    columns = {
        "path": ["a.png", "b.png"],
        "sentences": [[{"raw": "A dog .", "sentid": 0}, {"raw": "Dog .", "sentid": 1}], None],
    }
    items, _, _ = read(write(tmp_path / "t.parquet", columns))
    assert [item.captions for item in items] == [("A dog .", "Dog ."), ()]


def test_a_table_without_pictures_says_what_its_bytes_are_not(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {"audio": [b"RIFFxxxxWAVE"], "n": [1]})
    with pytest.raises(
        SourceError, match=r"the columns are 'n'; name one .*column 'audio' holds bytes, but no picture"
    ):
        read(file)
