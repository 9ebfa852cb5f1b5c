"""How good the default encoder and `lite@1` are, side by side: retrieval, hard negatives, search by class name.

DATA holds the folders `flickr8k`, `coco`, `imagenet_sample` and `ucm`, each with a `manifest.jsonl`. Every set becomes
a result of its own; `--cards` writes the model cards of the versions of `lite` from the same run.

python -m benchmarks.retrieval DATA [--cards] [--encoders SPEC...] [--sets NAME...]
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.card import write_card
from benchmarks.results import commit, machine, write
from mmalign.encoders.base import Encoder
from mmalign.encoders.lite.v1 import LiteEncoder
from mmalign.encoders.lite.v2 import Lite2Encoder
from mmalign.encoders.registry import load_encoder
from mmalign.evaluation.classes import ClassesTable, evaluate_classes
from mmalign.evaluation.pairs import PairsTable, evaluate_pairs
from mmalign.evaluation.retrieval import RetrievalTable, evaluate_retrieval

TABLES: dict[str, Callable[..., RetrievalTable | PairsTable | ClassesTable]] = {
    "retrieval": evaluate_retrieval,
    "pairs": evaluate_pairs,
    "classes": evaluate_classes,
}


@dataclass(frozen=True)
class DataSet:
    """Something to measure encoders on.

    Attributes:
        table: A key of `TABLES`.
        folder: Where its manifest is.
        data: What it is, in words; up to the colon it is its name.
        split: Which part of it; all of it where None.
    """

    table: str
    folder: str
    data: str
    split: str | None = None


SETS = {
    "retrieval": DataSet("retrieval", "flickr8k", "Flickr8k dev: photographs with five captions each", "dev"),
    "pairs": DataSet("pairs", "coco", "SugarCrepe: COCO photographs, true captions against hard negatives"),
    "classes_imagenet": DataSet(
        "classes",
        "imagenet_sample",
        "ImageNet sample: one photograph a class; the picture tower of lite was trained on ImageNet",
    ),
    "classes_ucm": DataSet("classes", "ucm", "UC Merced: aerial pictures of 21 classes"),
}


def measure(encoder: Encoder, one: DataSet, data: Path) -> dict[str, Any]:
    """One table of one encoder as JSON-ready values, with what it was measured on, when and with which weights."""
    manifest = data / one.folder / "manifest.jsonl"
    table = TABLES[one.table](manifest, split=one.split, encoder=encoder)
    split = "" if one.split is None else f" --split {one.split}"
    return {
        "table": one.table,
        "data": one.data,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "commit": commit(),
        "command": f"mmalign eval {one.table} --manifest {one.folder}/manifest.jsonl{split} --encoder {encoder.name}",
        "fingerprint": encoder.fingerprint,
        "skipped": len(table.skipped),
        **table.to_dict(),
    }


def rows(told: Mapping[str, Any]) -> dict[str, tuple[float, Sequence[float] | None, float | None]]:
    """The figures of a table: value, interval and chance by name, the last two where there are any."""
    if told["table"] == "pairs":
        scores = {"all pairs": told["overall"], **told["by_type"]}
        return {
            f"{name} ({score['n_pairs']})": (score["accuracy"], score["interval_95"], told["chance"])
            for name, score in scores.items()
        }
    directions = [name for name in told if "_to_" in name]
    return {
        f"{direction.replace('_', '-')} {name}": (
            value,
            told["interval_95"][direction].get(name),
            told.get("chance", {}).get(direction, {}).get(name),
        )
        for direction in directions
        for name, value in told[direction].items()
    }


def figures(several: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """One row a figure: each encoder's value and 95% interval, and what chance would reach."""
    table: dict[str, dict[str, Any]] = {}
    for told in several:
        for name, (value, interval, _) in rows(told).items():
            cells = table.setdefault(name, {})
            cells[told["encoder"]] = value
            cells["95%" if len(several) == 1 else f"{told['encoder']} 95%"] = (
                "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"
            )
    for name, (_, _, chance) in rows(several[0]).items():
        if chance is not None:
            table[name]["chance"] = chance
    return table


def words(one: DataSet, told: Mapping[str, Any]) -> str:
    """What was measured on, with counts."""
    names = {"n_images": "pictures", "n_captions": "captions", "n_pairs": "pairs", "n_classes": "classes"}
    counts = [f"{told[key]:,} {name}" for key, name in names.items() if key in told]
    prompts = [f"prompt {prompt!r}" for prompt in told.get("prompts", ())]
    return "; ".join([one.data, ", ".join(counts), *prompts, "percent, but ranks"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoders", nargs="+", default=["lite", "lite@1"], metavar="SPEC")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--cards", action="store_true", help="also write the cards of lite; needs all sets")
    options = parser.parse_args(arguments)
    if options.cards and set(options.sets) != set(SETS):
        parser.error("a card shows all sets; leave --sets out")
    loaded = [load_encoder(spec, device="cpu") for spec in options.encoders]
    # `lite` may be `lite@1`.
    encoders = list({encoder.name: encoder for encoder in loaded}.values())
    measured: dict[str, list[dict[str, Any]]] = {encoder.name: [] for encoder in encoders}
    for name in options.sets:
        several = [measure(encoder, SETS[name], options.data) for encoder in encoders]
        for told in several:
            measured[told["encoder"]].append(told)
        write(name, words(SETS[name], several[0]), figures(several))
    for encoder in encoders if options.cards else []:
        if isinstance(encoder, LiteEncoder | Lite2Encoder):
            print(write_card(encoder, measured[encoder.name]))


if __name__ == "__main__":
    main()
