"""Checkpoints that a kill cannot tear: whole files, and one small file that names them, replaced in one step."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import InputError, StorageError
from mmalign.utils import write_atomic

POINTER = "checkpoint.json"


def state_digest(state: Mapping[str, torch.Tensor], *versions: str) -> str:
    """Digest the names, shapes and dtypes of a state, and what else has to be the same for it to be loaded.

    Args:
        state: A state dict.
        versions: Further texts, such as the digest of the data.

    Returns:
        64 hex digits.
    """
    layout = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in sorted(state.items())]
    return hashlib.sha256(json.dumps([layout, *versions]).encode()).hexdigest()


class Checkpoints:
    """The checkpoint of a run's folder, and its best weights.

    Args:
        folder: The run's folder.
        identity: What must be the same for a checkpoint to fit, from `state_digest`.
        upgrade: Brings a state that an earlier version wrote into the present form, and leaves others as they are.
    """

    def __init__(
        self, folder: Path, *, identity: str, upgrade: Callable[[dict[str, Any]], dict[str, Any]] = lambda state: state
    ) -> None:
        self._folder, self._identity, self._upgrade = folder, identity, upgrade

    def save(self, state: Mapping[str, Any], *, best: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write a checkpoint in the place of the last one.

        Args:
            state: Tensors, numbers, texts, and lists and dicts of them.
            best: Weights that are better than all before; those written last stay where None.

        Raises:
            StorageError: The disk refused; the last checkpoint is as it was.
        """
        pointer = _read_pointer(self._folder) or {}
        written: list[Path] = []
        fresh: dict[str, Any] = {"identity": self._identity, "files": dict(pointer.get("files", {}))}
        try:
            for name, content in (("state", dict(state)), ("best", dict(best) if best is not None else None)):
                if content is None:
                    continue
                path = self._folder / f"{name}-{state['epoch']}-{state['step']}.pt"
                if path.name == fresh["files"].get(name, {}).get("file"):
                    path = path.with_name(f"{path.stem}-again.pt")
                written.append(path)
                with path.open("wb") as stream:
                    torch.save(content, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                fresh["files"][name] = {"file": path.name, "sha256": _sha256(path)}
            write_atomic(self._folder / POINTER, json.dumps(fresh, indent=1))
        except (OSError, RuntimeError) as error:
            # torch wraps what the disk said in RuntimeError.
            for path in written:
                path.unlink(missing_ok=True)
            raise StorageError(
                f"the checkpoint in {self._folder} cannot be written: {error}; the last one is as it was: free space "
                "and run the same command again"
            ) from error
        in_use = {entry["file"] for entry in fresh["files"].values()}
        for path in [*self._folder.glob("state-*.pt"), *self._folder.glob("best-*.pt")]:
            if path.name not in in_use:
                path.unlink()

    def load(self, name: str = "state") -> dict[str, Any] | None:
        """Read what was written last.

        Args:
            name: `state`, or `best` for the best weights.

        Returns:
            What `save` was given, tensors on the processor; None where nothing was written.

        Raises:
            InputError: The file is damaged, or belongs to another model or other data.
        """
        pointer = _read_pointer(self._folder)
        if pointer is None or name not in pointer["files"]:
            return None
        if pointer["identity"] != self._identity:
            raise InputError(
                f"the checkpoint in {self._folder} was made by another model or with other pictures or captions; "
                "name another --out, or bring the model and the data back"
            )
        state = load_file(self._folder, pointer["files"][name])
        return self._upgrade(state) if name == "state" else state

    def load_best(self) -> dict[str, torch.Tensor]:
        """Read the best weights.

        Returns:
            The model's state dict, on the processor.

        Raises:
            InputError: No epoch is finished, or as for `load`.
        """
        state = self.load("best")
        if state is None:
            raise InputError(f"{self._folder} holds no finished epoch; delete {self._folder / POINTER} to begin anew")
        return state


def load_best(folder: Path) -> dict[str, torch.Tensor]:
    """Read the best weights of a run.

    Args:
        folder: The run's folder.

    Returns:
        The model's state dict, on the processor.

    Raises:
        InputError: There is no run, it has not finished an epoch, or its file is damaged.
    """
    pointer = _read_pointer(folder)
    if pointer is None or "best" not in pointer["files"]:
        raise InputError(f"{folder} holds no finished epoch of a training; expected a folder given as --out before")
    return load_file(folder, pointer["files"]["best"])


def load_file(folder: Path, entry: Mapping[str, str]) -> dict[str, Any]:
    """Read one file after comparing its bytes with the digest that was taken when it was written.

    Args:
        folder: Where it lies.
        entry: Its `file` and `sha256`.

    Returns:
        Its content.

    Raises:
        InputError: It is gone, or has other bytes.
    """
    path = folder / entry["file"]
    if not path.is_file() or _sha256(path) != entry["sha256"]:
        what = "is truncated or damaged" if path.is_file() else "is gone"
        raise InputError(f"{path} {what}; bring it back, or delete {folder / POINTER} to begin the training anew")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def _read_pointer(folder: Path) -> dict[str, Any] | None:
    path = folder / POINTER
    try:
        pointer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete it to begin the training anew") from error
    return pointer


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
