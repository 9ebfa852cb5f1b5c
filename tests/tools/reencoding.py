"""A run that encodes a collection anew in a process of its own, which may kill itself at a named step.

    python -m tests.tools.reencoding COLLECTION [--slow] [MODULE:FUNCTION:before|after:NTH]

prints the report as JSON, or dies of SIGKILL just before or after the NTH call of the function. `--slow` takes some
milliseconds for each picture.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.collection import embedding_cache as renewal
from mmalign.collection.collection import Collection
from mmalign.errors import ReencodeInterrupted
from tests.tools.color_encoder import OtherColorEncoder
from tests.tools.indexing import plant


class SlowEncoder(OtherColorEncoder):
    def stream_image(self, images: Any, *, batch_size: int = 32) -> Iterator[np.ndarray]:
        for image in images:
            time.sleep(0.01)
            yield self.encode_image([image])


def main() -> None:
    collection, *words = sys.argv[1:]
    # Many small commits, so that there is something to lose between them.
    renewal._COMMIT_PICTURES = 20
    slow = "--slow" in words
    for point in words:
        if point != "--slow":
            plant(point)
    try:
        report = Collection.open(Path(collection)).reencode(SlowEncoder() if slow else OtherColorEncoder())
    except ReencodeInterrupted as stop:
        print(json.dumps(stop.report.to_dict()))
        sys.exit(130)
    print(json.dumps(report.to_dict()))


if __name__ == "__main__":
    main()
