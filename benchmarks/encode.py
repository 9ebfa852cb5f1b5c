"""Pictures per second of the default encoder, as a ratio to a bare forward loop of the same model.

Two loops to compare with, both on the same decoded pictures in memory: one prepares each picture (resize, to array)
and runs the model, in one thread; the other is given prepared arrays, so that nothing but the model runs. All three
take turns, and the median of the ratios within a turn is what counts, since the machine's speed drifts.

python -m benchmarks.encode FOLDER [COUNT]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.results import write
from mmalign.encoders.device import resolve_device
from mmalign.encoders.efficientnet import EfficientNetLite2, preprocess
from mmalign.encoders.lite import LiteEncoder
from mmalign.encoders.towers import image_features
from mmalign.media.images import decode_image

BATCH = 32
TURNS = 5


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 512
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})[:count]
    pictures = [decode_image(path).image for path in paths]
    prepared = [preprocess(picture) for picture in pictures]
    encoder = LiteEncoder()
    model = EfficientNetLite2(resolve_device(None))

    def bare_prepared() -> None:
        for start in range(0, len(prepared), BATCH):
            image_features(model, prepared[start : start + BATCH])

    def bare_decoded() -> None:
        for start in range(0, len(pictures), BATCH):
            image_features(model, [preprocess(picture) for picture in pictures[start : start + BATCH]])

    def from_files() -> None:
        encoder.encode_image((decode_image(path).image for path in paths), batch_size=BATCH)

    def ours() -> None:
        encoder.encode_image(pictures, batch_size=BATCH)

    loops = {"ours": ours, "decoded": bare_decoded, "prepared": bare_prepared, "files": from_files}
    for loop in loops.values():
        loop()
    turns = [{name: len(paths) / seconds(loop) for name, loop in loops.items()} for _ in range(TURNS)]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in loops}
    write(
        "encode",
        f"{len(paths)} pictures of {folder.resolve().parent.name}, lite@1, batches of {BATCH}",
        {
            "pictures_per_s": round(medians["ours"], 1),
            "ratio_to_a_loop_that_prepares_and_runs": round(
                statistics.median(turn["ours"] / turn["decoded"] for turn in turns), 2
            ),
            "ratio_to_a_loop_that_only_runs": round(
                statistics.median(turn["ours"] / turn["prepared"] for turn in turns), 2
            ),
            "pictures_per_s_decoding_included": round(medians["files"], 1),
        },
    )


if __name__ == "__main__":
    main()
