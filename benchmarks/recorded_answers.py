"""Record searches, alignments and captions of real pictures, and compare two records to the last digit.

To see that a change of the code has not changed an answer: record before and after, each with its own checkout on
PYTHONPATH, and compare. Only what `mmalign` itself names is imported, so that any version can be asked.

python benchmarks/recorded_answers.py record FLICKR8K_FOLDER RECORD.json
python benchmarks/recorded_answers.py compare BEFORE.json AFTER.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICTURES, SEARCHES, ALIGNMENTS, CAPTIONS = 400, 200, 50, 50
WORDS = ("dog", "red", "beach", "bicycle", "snow", "children", "jump", "water", "man", "street")


def searches(inside: list[dict[str, Any]], outside: list[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """200 searches of the kinds that people ask."""
    for row in outside[:80]:
        yield {"query": row["captions"][0]}
    for row in outside[80:110]:
        yield {"query": row["captions"][1], "min_recall": 1.0, "k": 25}
    for word in WORDS:
        yield {"query": word}
        yield {"query": f"a picture of {word}", "copies": True}
    for row in outside[110:140]:
        yield {"query": str(folder / row["image"])}
    for row in inside[:15]:
        yield {"query": str(folder / row["image"]), "where": "number < 200"}
    for row in outside[140:165]:
        yield {"query": row["captions"][2], "where": "number >= 100 AND half = 'even'", "k": 5}


def record(folder: Path) -> dict[str, Any]:
    """Index the pictures and ask."""
    from mmalign import Aligner, Collection

    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    step = len(rows) // (2 * PICTURES)
    inside, outside = rows[:: 2 * step][:PICTURES], rows[step :: 2 * step][:PICTURES]
    with tempfile.TemporaryDirectory() as work:
        table = Path(work) / "pictures.jsonl"
        lines = [
            {
                "id": f"picture-{number:03d}",
                "image": str((folder / row["image"]).resolve()),
                "captions": row["captions"],
                "number": number,
                "half": "odd" if number % 2 else "even",
            }
            for number, row in enumerate(inside)
        ]
        table.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        collection = Collection.create(Path(work) / "pictures.mm", encoder="lite")
        collection.add(str(table), progress=False)
        collection.build_index("ivf-flat", progress=False)
        found = []
        for asked in searches(inside, outside, folder):
            result = collection.search(asked.pop("query"), **asked)
            found.append([[hit.id, float(hit.score), hit.probability, hit.metadata["number"]] for hit in result])
        captions = []
        for row in outside[-CAPTIONS:]:
            caption = collection.caption(str(folder / row["image"]))
            captions.append(caption.to_dict())
    aligner = Aligner("lite")
    alignments = [
        aligner.align(str(folder / row["image"]), row["captions"][0]).to_dict()
        for row in outside[200 : 200 + ALIGNMENTS]
    ]
    assert (len(found), len(alignments), len(captions)) == (SEARCHES, ALIGNMENTS, CAPTIONS)
    return {"searches": found, "alignments": alignments, "captions": captions}


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Where two records differ in anything, and be it the last digit of a number."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                yield f"{place}.{name}: only {'after' if name in after else 'before'}"
            elif name != "seconds":
                yield from differences(before[name], after[name], f"{place}.{name}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f"{place}: {len(before)} and {len(after)} entries"
        for number, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from differences(one, other, f"{place}[{number}]")
    elif before != after:
        yield f"{place}: {before!r} and {after!r}"


def main() -> None:
    match sys.argv[1:]:
        case ["record", folder, path]:
            Path(path).write_text(json.dumps(record(Path(folder))), encoding="utf-8")
        case ["compare", before, after]:
            one, other = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (before, after))
            found = list(differences(one, other))
            for line in found[:100]:
                print(line)
            counts = ", ".join(f"{len(values)} {name}" for name, values in one.items())
            print(f"{counts}: {len(found)} differences")
            sys.exit(bool(found))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
