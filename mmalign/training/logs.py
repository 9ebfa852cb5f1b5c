"""The records of a training: one JSON object a line, and TensorBoard's files where it is installed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TrainingLog:
    """Writes records to `log.jsonl` of a run's folder, and their numbers to TensorBoard's files beside it.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.jsonl"
        if self._path.is_file() and not self._path.read_bytes().endswith(b"\n"):
            # A kill cut the last line short; what follows must not be glued to it.
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        self._board: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Args:
            record: JSON-ready values; where there is an `epoch`, its numbers become curves.
        """
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        if self._board is not None and record.get("event") == "epoch":
            for name, value in record.items():
                if isinstance(value, int | float) and name != "epoch":
                    self._board.add_scalar(name, value, record["epoch"])
            self._board.flush()

    def epochs(self) -> set[int]:
        """The numbers of the epochs that have a record."""
        if not self._path.is_file():
            return set()
        found = set()
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                # The line that a kill cut short.
                continue
            if record.get("event") == "epoch":
                found.add(int(record["epoch"]))
        return found

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()
