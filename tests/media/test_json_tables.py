"""JSON tables in the forms that tools write, and COCO's annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmalign.errors import SourceError
from mmalign.media.tables import read_table
from mmalign.types import Item, Note, Skip

A = {"image": "a.jpg", "captions": ["a dog"], "n": 1}
B = {"image": "b.jpg", "captions": ["a cat"], "n": 2}


def table(folder: Path, content: Any, name: str = "t.json") -> list[Item | Skip | Note]:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return list(read_table(path))


def items(found: list[Item | Skip | Note]) -> list[Item]:
    return [entry for entry in found if isinstance(entry, Item)]


def notes(found: list[Item | Skip | Note]) -> list[str]:
    return [str(entry) for entry in found if isinstance(entry, Note)]


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
@pytest.mark.parametrize(
    "content",
    [
        [A, B],
        {"rows": [A, B]},
        {"data": [A, B]},
        {"images": [A, B]},
        {"rows": [{"row_idx": 0, "row": A}, {"row_idx": 1, "row": B}]},
        {"columns": ["image", "captions", "n"], "index": [0, 1], "data": [[*A.values()], [*B.values()]]},
        {"image": ["a.jpg", "b.jpg"], "captions": [["a dog"], ["a cat"]], "n": [1, 2]},
        {
            "image": {"0": "a.jpg", "1": "b.jpg"},
            "captions": {"0": ["a dog"], "1": ["a cat"]},
            "n": {"0": 1, "1": 2},
        },
        {"a.jpg": {"captions": ["a dog"], "n": 1}, "b.jpg": {"caption": "a cat", "n": 2}},
        json.dumps([A, B], indent=2),
        json.dumps({"rows": [A, B]}, indent=2),
        "\ufeff" + json.dumps(A) + "\n" + json.dumps(B) + "\n",
        json.dumps(A) + "\r\n\r\n" + json.dumps(B),
        "[" + json.dumps(A) + ",\n" + json.dumps(B) + "]",
    ],
)  # fmt: skip
def test_forms_of_one_table(content: Any, name: str, tmp_path: Path) -> None:
    if name == "t.jsonl" and isinstance(content, dict):
        content = json.dumps(content, indent=1)
    assert table(tmp_path, content, name) == [
        Item(f"{tmp_path}/a.jpg", captions=("a dog",), metadata={"n": 1}),
        Item(f"{tmp_path}/b.jpg", captions=("a cat",), metadata={"n": 2}),
    ]


def test_rows_by_keys_of_their_own(tmp_path: Path) -> None:
    assert table(tmp_path, {"x1": A, "x2": B}) == [
        Item(f"{tmp_path}/a.jpg", captions=("a dog",), metadata={"key": "x1", "n": 1}),
        Item(f"{tmp_path}/b.jpg", captions=("a cat",), metadata={"key": "x2", "n": 2}),
    ]


def test_captions_by_the_name_of_the_picture(tmp_path: Path) -> None:
    assert table(tmp_path, {"a.jpg": ["one", "two"], "sub/b.PNG": "three", "http://x/c": []}) == [
        Item(f"{tmp_path}/a.jpg", captions=("one", "two")),
        Item(f"{tmp_path}/sub/b.PNG", captions=("three",)),
        Item("http://x/c"),
    ]


def test_captions_within_objects(tmp_path: Path) -> None:
    # Karpathy's splits, and the way Hugging Face writes lists of objects.
    found = table(
        tmp_path,
        {
            "images": [
                {
                    "filename": "a.jpg",
                    "split": "train",
                    "sentences": [{"raw": "A dog .", "sentid": 1}, {"raw": "Dog ."}],
                },
                {"filename": "b.jpg", "split": "val", "sentences": {"raw": ["A cat .", "Cat ."], "sentid": [3, 4]}},
                {"filename": "c.jpg", "split": "val", "captions": [{"caption": "A hen ."}]},
            ],
            "dataset": "flickr8k",
        },
    )
    assert items(found) == [
        Item(f"{tmp_path}/a.jpg", captions=("A dog .", "Dog ."), metadata={"split": "train"}),
        Item(f"{tmp_path}/b.jpg", captions=("A cat .", "Cat ."), metadata={"split": "val"}),
        Item(f"{tmp_path}/c.jpg", captions=("A hen .",), metadata={"split": "val"}),
    ]
    assert notes(found) == ["only 'images' is read; 'dataset' is left out"]


def test_a_comma_at_the_end_of_a_line_is_named(tmp_path: Path) -> None:
    found = table(tmp_path, json.dumps(A) + "\n" + json.dumps(B) + ",\n", "t.jsonl")
    assert isinstance(found[0], Item)
    assert isinstance(found[1], Skip)
    assert found[1].uri == f"{tmp_path}/t.jsonl:2"
    assert found[1].reason.endswith("take out the comma at the end of the line")


# COCO --------------------------------------------------------------------------------------------------------------

IMAGES = [
    {"id": 9, "file_name": "009.jpg", "width": 640, "height": 480, "coco_url": "http://coco/009.jpg", "license": 3},
    {"id": 25, "file_name": "025.jpg", "width": 640, "height": 426, "coco_url": "http://coco/025.jpg", "license": 1},
    {"id": 30, "file_name": "030.jpg", "width": 640, "height": 428, "coco_url": "http://coco/030.jpg", "license": 1},
]
CAPTIONS = {
    "info": {"year": 2017},
    "images": IMAGES,
    "annotations": [
        {"id": 1, "image_id": 25, "caption": "A giraffe ."},
        {"id": 2, "image_id": 9, "caption": "Food ."},
        {"id": 3, "image_id": 25, "caption": "Two giraffes ."},
    ],
}
INSTANCES = {
    "images": IMAGES,
    "categories": [{"id": 51, "name": "bowl"}, {"id": 25, "name": "giraffe"}],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 51, "bbox": [0.5, 93.8, 305.8, 142.9], "area": 1.5, "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 51, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3]]},
        {"id": 3, "image_id": 25, "category_id": 25, "bbox": [5, 6, 7, 8]},
        {"id": 4, "image_id": 77, "category_id": 25, "bbox": [5, 6, 7, 8]},
        {"id": 5, "image_id": 9, "category_id": 99, "bbox": [5, 6, 7, 8]},
    ],
}


@pytest.mark.parametrize(
    ("annotations", "pictures"),
    [
        (".", "."),
        (".", "images"),
        (".", "val2017"),
        (".", "images/val2017"),
        ("annotations", "val2017"),
        ("annotations", "images"),
        ("annotations", "images/val2017"),
        ("annotations", "."),
    ],
)
def test_coco_captions_wherever_the_pictures_are(annotations: str, pictures: str, tmp_path: Path) -> None:
    for folder in (annotations, pictures):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for image in IMAGES[:2]:
        (tmp_path / pictures / str(image["file_name"])).write_bytes(b"x")
    found = table(tmp_path / annotations, CAPTIONS, "captions_val2017.json")
    where = (tmp_path / pictures).resolve()
    assert items(found) == [
        Item(
            f"{where}/009.jpg",
            captions=("Food .",),
            metadata={"coco_id": 9, "license": 3, "coco_url": "http://coco/009.jpg"},
        ),
        Item(
            f"{where}/025.jpg",
            captions=("A giraffe .", "Two giraffes ."),
            metadata={"coco_id": 25, "license": 1, "coco_url": "http://coco/025.jpg"},
        ),
    ]
    skips = [entry for entry in found if isinstance(entry, Skip)]
    assert [skip.uri.rpartition("#")[2] for skip in skips] == ["3"]
    assert skips[0].reason.startswith("no file '030.jpg' was found in ")


def test_coco_instances_become_categories_and_phrases(tmp_path: Path) -> None:
    for image in IMAGES:
        (tmp_path / str(image["file_name"])).write_bytes(b"x")
    found = table(tmp_path, INSTANCES)
    first, second, third = items(found)
    assert first.metadata["categories"] == ["bowl"]
    assert first.metadata["phrases"] == [
        {"phrase": "bowl", "box": [0.5, 93.8, 305.8, 142.9]},
        {"phrase": "bowl", "box": [1, 2, 3, 4]},
    ]
    assert second.metadata["phrases"] == [{"phrase": "giraffe", "box": [5, 6, 7, 8]}]
    assert (third.metadata["categories"], third.metadata["phrases"]) == ([], [])
    assert notes(found) == [
        "1 annotations of images that are not in the list are left out, the first at 3",
        "1 annotations of categories that are not in the list are left out, the first at 4",
        "of the annotations, area, iscrowd, segmentation are left out",
        "height and width are left out: the collection keeps those of the pictures themselves",
    ]


def test_coco_without_pictures_is_fetched_or_says_where_it_looked(tmp_path: Path) -> None:
    found = table(tmp_path, CAPTIONS)
    assert [item.uri for item in items(found)] == [image["coco_url"] for image in IMAGES]
    assert "no picture is there; all are fetched from the web: http://coco/009.jpg, ..." in notes(found)
    bare = [{"id": image["id"], "file_name": image["file_name"]} for image in IMAGES]
    with pytest.raises(
        SourceError, match=f"COCO annotations of 3 images, but none .* looked in {tmp_path}, .*put the file"
    ):
        table(tmp_path, CAPTIONS | {"images": bare})


def test_one_bad_entry_of_coco_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "009.jpg").write_bytes(b"x")
    document = {
        "images": [IMAGES[0], "odd", {"file_name": "no id"}],
        "annotations": [
            "odd",
            {"image_id": "9", "caption": "Food ."},
            {"image_id": 9, "caption": 7},
            {"image_id": 9, "category_id": 1, "bbox": "all"},
        ],
        "categories": [{"id": 1, "name": "bowl"}],
    }
    found = table(tmp_path, document)
    assert [(item.captions, item.metadata["categories"]) for item in items(found)] == [(("Food .",), ["bowl"])]
    assert [entry.reason for entry in found if isinstance(entry, Skip)] == [
        "expected an image with an id, got 'odd'",
        "expected an image with an id, got {'file_name': 'no id'}",
    ]
    assert [note for note in notes(found) if note.startswith("1 ")] == [
        "1 annotations that name no image are left out, the first at 0",
        "1 annotations with a caption that is no text are left out, the first at 2",
        "1 annotations with a box that is not four numbers are left out, the first at 3",
    ]
