"""What every training does around its loop: a folder of its own, a seed, a log, Ctrl-C, and going on afterwards."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import InputError, StorageError, TrainingInterrupted
from mmalign.training.logs import TrainingLog
from mmalign.training.loop import Log, TrainingLoop
from mmalign.types import gives_json
from mmalign.utils import ShowProgress, write_atomic

RUN_FILE = "run.json"
"""What a run's folder keeps of its configuration."""
EXPORT_FOLDER = "export"


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training gave.

    Attributes:
        out: The run's folder.
        exported: The file or folder that the best epoch's weights were written to.
        best: The record of the best epoch.
        epochs: How many epochs were trained in all.
        resumed: Whether an earlier run was gone on with.
        data: Counts of what was used and left out.
        sha256: Digest of the exported file, 64 hex digits; empty where it was not taken.
    """

    out: Path
    exported: Path
    best: Mapping[str, Any]
    epochs: int
    resumed: bool
    data: Mapping[str, Any]
    sha256: str = ""

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        payload: dict[str, Any] = {
            "out": str(self.out),
            "exported": str(self.exported),
            "best": dict(self.best),
            "epochs": self.epochs,
            "resumed": self.resumed,
            "data": dict(self.data),
        }
        return {**payload, "sha256": self.sha256} if self.sha256 else payload


def claim(folder: Path, config: Mapping[str, Any], *, known: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Write the configuration into a new folder, or compare it with the one that is there.

    Args:
        folder: The run's folder; made if need be.
        config: JSON-ready values.
        known: Reads an earlier configuration, and fills in the defaults of keys that have come into being since.

    Raises:
        InputError: It holds a run of another configuration, or its file is damaged.
        StorageError: The disk refused.
    """
    path = folder / RUN_FILE
    wanted = json.loads(json.dumps(config))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write_atomic(path, json.dumps({"config": wanted}, indent=1) + "\n")
            return
        there = json.loads(path.read_text(encoding="utf-8"))["config"]
        with suppress(InputError):
            there = known(there)
        there = json.loads(json.dumps(there))
    except OSError as error:
        raise StorageError(f"the folder {folder} cannot be used: {error}; name another --out") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); name another --out, or delete that folder") from error
    differ = sorted(_differences(there, wanted))
    if differ:
        raise InputError(
            f"{folder} holds a run of another configuration: {'; '.join(differ)}; name another --out, or bring the "
            "configuration back"
        )


def _differences(there: Any, wanted: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        for key in there.keys() | wanted.keys():
            yield from _differences(there.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif there != wanted:
        yield f"{name} was {json.dumps(there)} and is {json.dumps(wanted)}"


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed of the training's own, and leave torch's generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def run(
    loop: TrainingLoop[Any],
    folder: Path,
    *,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    header: Mapping[str, Any],
    export: Callable[[dict[str, torch.Tensor], Path], tuple[Path, str]],
    log: Log | None = None,
    progress: ShowProgress | None = None,
) -> TrainingReport:
    """Go on from the folder's checkpoint, or begin, train to the end, and export the best epoch.

    Args:
        loop: The training.
        folder: The run's folder, where `log.jsonl` is.
        config: The configuration, JSON-ready.
        data: Counts of what is used and left out.
        header: What the first record holds beside those and `event`, which is `start` or `resume`.
        export: Writes the model's state dict of the best epoch into a folder; gives what it wrote, and its SHA-256 or
            nothing.
        log: Called with each record that is written.
        progress: Told how far the epoch is.

    Returns:
        The report.

    Raises:
        InputError: The checkpoint is damaged, or belongs to other data; or the loss is not finite.
        StorageError: The disk refused; what was written before is kept.
        TrainingInterrupted: Ctrl-C; the state is saved.
    """
    resumed = go_on(loop, folder, first={"config": config, "data": data, **header}, log=log, progress=progress)
    weights, path = loop.best_weights(), folder / EXPORT_FOLDER
    try:
        path.mkdir(exist_ok=True)
        exported, digest = export(weights, path)
    except OSError as error:
        raise StorageError(
            f"the weights cannot be exported to {path}: {error}; free space and run the same command again"
        ) from error
    return TrainingReport(
        out=folder,
        exported=exported,
        best=loop.progress.best or {},
        epochs=len(loop.progress.history),
        resumed=resumed,
        data=data,
        sha256=digest,
    )


def go_on(
    loop: TrainingLoop[Any],
    folder: Path,
    *,
    first: Mapping[str, Any],
    log: Log | None = None,
    progress: ShowProgress | None = None,
) -> bool:
    """Go on from the folder's checkpoint, or begin, and train to the end, with records in the folder's log.

    Args:
        loop: The training.
        folder: The run's folder, where `log.jsonl` is.
        first: What the first record holds beside `event`, which is `start` or `resume`.
        log: Called with each record that is written.
        progress: Told how far the epoch is.

    Returns:
        Whether an earlier run was gone on with.

    Raises:
        InputError: The checkpoint is damaged, or belongs to other data; or the loss is not finite.
        StorageError: The disk refused; what was written before is kept.
        TrainingInterrupted: Ctrl-C; the state is saved.
    """
    resumed = loop.resume()
    first = {"event": "resume" if resumed else "start", **first}
    if not _train(loop, folder, first=first, log=log, progress=progress):
        at = loop.progress
        raise TrainingInterrupted(
            f"stopped in epoch {at.epoch} of {loop.options.epochs} after {at.step} of {loop.steps} batches; all of it "
            f"is kept in {folder}, and the same command goes on from there"
        )
    return resumed


def _train(
    loop: TrainingLoop[Any],
    folder: Path,
    *,
    first: Mapping[str, Any],
    log: Log | None,
    progress: ShowProgress | None,
) -> bool:
    """Train with records in the folder's log; whether it came to the end."""
    records = TrainingLog(folder)

    def write(record: Mapping[str, Any]) -> None:
        records.write(record)
        if log is not None:
            log(record)

    def tick() -> None:
        if progress is not None:
            progress(f"epoch {loop.progress.epoch} of {loop.options.epochs}", loop.progress.step, loop.steps)

    try:
        write(first)
        known = records.epochs()
        for record in loop.progress.history:
            # A kill between a checkpoint and its record leaves the record out.
            if record["epoch"] not in known:
                write(record)
        if loop.progress.epoch <= loop.options.epochs:
            # What was told before is done; the first step may take long.
            tick()
        with interrupts() as stop:
            return loop.run(log=write, stop=stop, tick=tick)
    finally:
        records.close()


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that the loop asks between two steps; the second one stops at once."""
    asked = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def handler(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        # A shell's background job: Ctrl-C in the terminal is not meant for it.
        yield lambda: False
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
