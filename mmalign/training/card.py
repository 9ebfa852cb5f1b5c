"""Measures the `lite` encoder and writes the figures that its model card shows.

python -m mmalign.training.card --manifest DATA/manifest.jsonl --split dev --data "Flickr8k dev"
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmalign.encoders.efficientnet import EFFICIENTNET_WEIGHTS
from mmalign.encoders.lite import ADAPTER_PATH, LiteEncoder
from mmalign.encoders.minilm import MINILM_WEIGHTS
from mmalign.encoders.wheels import locate
from mmalign.evaluation.retrieval import RetrievalTable, evaluate_retrieval
from mmalign.metrics.retrieval import bootstrap_interval

CARD_PATH = ADAPTER_PATH.with_suffix(".json")
LICENCE = "Apache-2.0; towers: see docs/lite-model.md"


def model_card(table: RetrievalTable, *, data: str, command: str) -> dict[str, Any]:
    """Describe the `lite` encoder, frozen towers included, and one measurement of it.

    Args:
        table: The measurement.
        data: The pictures and captions in words.
        command: What measured it.

    Returns:
        JSON-ready values: spec, dim, bytes of all weight files, licence, quality in a sentence, measured.
    """
    towers = [locate(file, feature="the lite encoder", extra="lite") for file in (MINILM_WEIGHTS, EFFICIENTNET_WEIGHTS)]
    scores = table.to_dict()["text_to_image"]
    # The captions of one picture are drawn together: they are not independent.
    low, high = bootstrap_interval(table.text_ranks <= 1, groups=table.text_owner)
    encoder = LiteEncoder(device="cpu")
    return {
        "spec": encoder.name,
        "dim": encoder.dim,
        "bytes": sum(path.stat().st_size for path in (ADAPTER_PATH, *towers)),
        "licence": LICENCE,
        "quality": f"{data.split(':')[0]} text-to-image any-hit@1 {scores['any_hit@1']:.1f}%, "
        f"@10 {scores['any_hit@10']:.1f}% (measured)",
        "measured": [
            {
                "data": data,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
                "commit": _commit(),
                "command": command,
                "fingerprint": encoder.fingerprint,
                **table.to_dict(),
                "text_to_image_any_hit@1_interval_95": [round(100 * low, 2), round(100 * high, 2)],
            }
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after the program's name; the process's own where None.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m mmalign.training.card", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--data", required=True, help="the pictures and captions in words")
    parser.add_argument("--out", type=Path, default=CARD_PATH)
    options = parser.parse_args(arguments)
    table = evaluate_retrieval(options.manifest, split=options.split, encoder=LiteEncoder(device="cpu"))
    command = f"python -m mmalign.training.card --manifest {options.manifest.name} --split {options.split}"
    card = model_card(table, data=options.data, command=command)
    options.out.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card["measured"][0]))
    return 0


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
