"""A run of indexing in a process of its own, which may kill itself at a named step.

    python -m tests.tools.indexing SOURCE COLLECTION [MODULE:FUNCTION:before|after:NTH]

prints the report as JSON, or dies of SIGKILL just before or after the NTH call of the function.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import wraps
from importlib import import_module
from pathlib import Path

from mmalign.collection.collection import Collection
from mmalign.collection.ingest import commit
from tests.tools.color_encoder import ColorEncoder


def plant(spec: str) -> None:
    """Make a function kill the process before or after its NTH call."""
    module, name, moment, nth = spec.split(":")
    owner = import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)
    calls = 0

    @wraps(original)
    def planted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == int(nth) and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == int(nth) and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, last, planted)


def main() -> None:
    source, collection, *points = sys.argv[1:]
    # Many small commits, so that there is something to lose between them.
    commit._COMMIT_ITEMS = 100
    for point in points:
        plant(point)
    opened = Collection.open_or_create(Path(collection), encoder=ColorEncoder())
    report = opened.add(source, progress=False)
    opened.build_index("flat", progress=False)
    print(json.dumps(report.to_dict()))


if __name__ == "__main__":
    main()
