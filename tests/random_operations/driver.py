"""Draws steps, writes each to a trace before it is done, does it, compares, and kills some in the middle."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmalign import Collection
from tests.random_operations.pictures import Pictures
from tests.random_operations.vectors import Vectors

ROOT = Path(__file__).resolve().parents[2]
KINDS: dict[str, Any] = {"vectors": Vectors, "pictures": Pictures}
# All that is kept is compared after so many steps; a step alone compares what it returned.
EVERY = 10
KILLED = 0.03


@contextmanager
def index_sizes(seed: int) -> Iterator[None]:
    """With every other seed, let the collection have scalar indexes and write few rows whole, as large ones do."""
    if seed % 2 == 0:
        yield
        return
    with patch("mmalign.store.scalar_indexes._WORTHWHILE", 10), patch("mmalign.store.lookup._LARGE", 10):
        yield


def run(kind: str, steps: int, seed: int, folder: Path, trace: Path, *, kills: bool = True) -> Counter[str]:
    """Do random steps.

    Args:
        kind: Which collection.
        steps: How many.
        seed: Of what is drawn.
        folder: Where everything is made; empty.
        trace: Where the steps are written, one JSON object a line.
        kills: Whether some are done in a process that is killed.

    Returns:
        How often each step was done.

    Raises:
        AssertionError: The collection and the oracle differ; the last line of the trace is the step after which.
    """
    local = random.Random(seed)
    world = KINDS[kind](folder)
    done: Counter[str] = Counter()
    with trace.open("w", encoding="utf-8") as file, index_sizes(seed):
        print(json.dumps({"kind": kind, "seed": seed}), file=file, flush=True)
        for number in range(steps):
            step = world.draw(local)
            if kills and world.can_be_killed(step) and local.random() < KILLED:
                step["killed_after_s"] = round(local.uniform(0, 0.25), 4)
            print(json.dumps(step), file=file, flush=True)
            _do(world, step, kind)
            done[("killed " if "killed_after_s" in step else "") + step["do"]] += 1
            if number % EVERY == 0 or number == steps - 1 or "killed_after_s" in step:
                world.check()
    return done


def begun(trace: Path) -> tuple[str, int]:
    """Say which kind of collection a trace is of, and the seed of what was drawn.

    Args:
        trace: What `run` wrote.
    """
    with trace.open(encoding="utf-8") as file:
        first = json.loads(file.readline())
    return first["kind"], first["seed"]


def replay(trace: Path, folder: Path) -> Counter[str]:
    """Do the steps of a trace again, comparing everything after each.

    Args:
        trace: What `run` wrote.
        folder: Where everything is made; empty, and of the same name, as ids come from the paths of pictures.

    Returns:
        How often each step was done.
    """
    lines = trace.read_text(encoding="utf-8").splitlines()
    kind, seed = begun(trace)
    world = KINDS[kind](folder)
    done: Counter[str] = Counter()
    for number, line in enumerate(lines[1:], 1):
        step = json.loads(line)
        try:
            with index_sizes(seed):
                _do(world, step, kind)
                world.check()
        except Exception as error:
            error.add_note(f"at step {number}: {line}")
            raise
        done[step["do"]] += 1
    return done


def _do(world: Any, step: dict[str, Any], kind: str) -> None:
    if world.senseless(step):
        return
    if "killed_after_s" not in step:
        world.run(step)
        return
    before = world.oracle.copy()
    world.expect(step)
    command = [sys.executable, "-m", "tests.random_operations", "--kind", kind, "--child", str(world.path)]
    process = subprocess.Popen([*command, json.dumps(step)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", "the process that is to be killed did not start"
    time.sleep(step["killed_after_s"])
    process.kill()
    process.communicate()
    world.settle(before, step)


def child(kind: str, path: Path, step: dict[str, Any]) -> None:
    """Do one step in a process of its own, which says when it begins."""
    collection = Collection.open(path, encoder=KINDS[kind].encoder_of(path))
    print("ready", flush=True)
    KINDS[kind].perform(collection, step)
