"""How well the default encoder finds pictures by caption, and captions by picture.

python -m benchmarks.retrieval MANIFEST SPLIT
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.results import write
from mmalign import evaluate_retrieval


def main() -> None:
    manifest, split = sys.argv[1:3]
    told = evaluate_retrieval(manifest, split=split).to_dict()
    figures = {
        f"{direction.replace('_', '-')} {name}": value
        for direction in ("text_to_image", "image_to_text")
        for name, value in told[direction].items()
    }
    name = Path(manifest).resolve().parent.name
    write(
        "retrieval",
        f"{told['encoder']} on {name}, split {split}: {told['n_images']:,} pictures, {told['n_captions']:,} captions",
        figures,
    )


if __name__ == "__main__":
    main()
