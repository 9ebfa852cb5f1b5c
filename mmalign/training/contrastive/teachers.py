"""Teachers: finished runs whose similarities a model learns to reproduce."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmalign.errors import InputError
from mmalign.training.cache import Arrays, Columns, Table, cached_arrays, row_blocks
from mmalign.training.checkpoint import load_best
from mmalign.training.contrastive.batches import Batch
from mmalign.training.contrastive.config import TrainingConfig, parse_config
from mmalign.training.contrastive.data import CaptionedPart
from mmalign.training.contrastive.frozen import frozen_texts
from mmalign.training.contrastive.model import TrainableEncoder
from mmalign.training.contrastive.models import build_model
from mmalign.training.contrastive.pictures import frozen_pictures
from mmalign.training.contrastive.validate import embed_table
from mmalign.training.progress import counter
from mmalign.training.run_dir import RUN_FILE
from mmalign.training.usable_pictures import picture_key
from mmalign.utils import ShowProgress, l2_normalize

_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Teachers:
    """The embeddings of all teachers side by side, so that one product gives the mean of their similarities.

    Attributes:
        images: Of the training pictures, the direction of the mean over their views, shape (n, width), float16.
        texts: Of the captions, shape (m, width).
        extras: Of the sentences without a picture, shape (e, width).
        factor: What turns the product into the mean over the teachers of cosine over temperature.
    """

    images: Columns
    texts: Columns
    extras: Columns | None
    factor: float

    def similarities(self, batch: Batch) -> torch.Tensor:
        """The teachers' mean cosine over temperature.

        Args:
            batch: Pictures, captions and sentences without a picture.

        Returns:
            Shape (captions and then extras, pictures), float32, on the processor.
        """
        total: torch.Tensor | None = None
        for name, array in self.images.items():
            images = torch.from_numpy(array[batch.pictures]).float()
            rows = [self.texts[name][batch.captions]]
            if self.extras is not None and len(batch.extras):
                rows.append(self.extras[name][batch.extras])
            part = torch.from_numpy(np.concatenate(rows)).float() @ images.T
            total = part if total is None else total + part
        if total is None:
            raise InputError("expected at least one teacher, got none")
        return total * self.factor


def read_run(folder: Path) -> TrainingConfig:
    """Read the configuration of a run.

    Args:
        folder: The run's folder.

    Returns:
        The configuration.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = folder / RUN_FILE
    try:
        return parse_config(json.loads(path.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no folder of a training: {path} cannot be read: {error}") from error


def load_trained(folder: Path, *, device: torch.device) -> TrainableEncoder:
    """Load the best epoch's model of a run.

    Args:
        folder: The run's folder.
        device: Where the model is to be.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: There is no such run, or its weights do not fit its configuration.
    """
    config = read_run(folder)
    model = build_model(config.model, device=device, seed=config.optimization.seed)
    take_weights(model, [folder])
    return model.eval()


def take_weights(model: TrainableEncoder, folders: Sequence[Path]) -> None:
    """Give a model the mean of the weights of some runs' best epochs.

    Args:
        model: A model of the runs' kind and sizes; its own weights are replaced.
        folders: The runs' folders, one or more.

    Raises:
        InputError: There is no such run, or its weights are another model's.

    Source: the mean of models of one beginning, Wortsman et al., Model soups, 2022.
    """
    total: dict[str, torch.Tensor] = {}
    for folder in folders:
        state = load_best(folder)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"the weights of {folder} do not fit the model ({' '.join(str(error).split())[:200]}); was it trained "
                "with other options or by another version of mmalign? Train it anew"
            ) from error
        for name, tensor in state.items():
            # What is counted and not learnt has no mean: the last run's stays.
            whole = not tensor.is_floating_point() or name not in total
            total[name] = tensor.clone() if whole else total[name] + tensor
    for name, tensor in total.items():
        if tensor.is_floating_point():
            total[name] = tensor / len(folders)
    model.load_state_dict(total)


def load_teachers(
    folders: Sequence[str],
    train: CaptionedPart,
    extras: Sequence[str],
    *,
    temperature: float,
    views: Sequence[str] = ("plain",),
    cache: Path,
    device: torch.device,
    progress: ShowProgress | None = None,
) -> Teachers | None:
    """Compute, or read from the cache, all teachers' embeddings.

    Args:
        folders: Finished runs; none gives None.
        train: The training pictures and captions.
        extras: Sentences without a picture.
        temperature: What the cosines are divided by.
        views: What each picture is shown as; a teacher who sees several is right more often than with any of them.
        cache: Where the embeddings are kept.
        device: Where to compute.
        progress: Told of every block.

    Returns:
        The teachers.

    Raises:
        InputError: A folder is no finished run.
    """
    if not folders:
        return None
    images: dict[str, Columns] = {}
    texts: dict[str, Columns] = {}
    more: dict[str, Columns] = {}
    for folder in map(Path, folders):
        teacher = _Teacher(folder, cache=cache, device=device, progress=progress)
        name = str(len(images))
        images[name] = teacher.pictures(train, views)
        texts[name] = teacher.sentences(train.captions, "captions")
        if extras:
            more[name] = teacher.sentences(extras, "texts")
    return Teachers(
        images={name: columns["embedding"] for name, columns in images.items()},
        texts={name: columns["embedding"] for name, columns in texts.items()},
        extras={name: columns["embedding"] for name, columns in more.items()} or None,
        factor=1 / (temperature * len(images)),
    )


class _Teacher:
    """One finished run, whose model is loaded when the cache lacks something."""

    def __init__(self, folder: Path, *, cache: Path, device: torch.device, progress: ShowProgress | None) -> None:
        read_run(folder)
        self._folder, self._cache, self._device, self._progress = folder, cache, device, progress
        state = load_best(folder)
        digest = hashlib.sha256()
        for key, tensor in sorted(state.items()):
            digest.update(key.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        self._version = digest.hexdigest()
        self._model: TrainableEncoder | None = None

    def pictures(self, train: CaptionedPart, views: Sequence[str]) -> Columns:
        keys = [picture_key(picture) for picture in train.pictures]

        def table(view: str) -> Table:
            model = self._load()
            parts = [
                frozen_pictures(model, part, view=view, cache=self._cache, role="train", progress=self._progress)
                for part in train.parts
            ]
            return Table(*parts)

        def compute(start: int) -> Iterator[Arrays]:
            streams = [self._embed(table(view), start, side="image") for view in views]
            for blocks_of_views in zip(*streams, strict=True):
                mean = sum(block["embedding"].astype(np.float32) for block in blocks_of_views)
                yield {"embedding": l2_normalize(np.asarray(mean)).astype(np.float16)}

        return self._cached("images", keys, compute, of=" ".join(views))

    def sentences(self, sentences: Sequence[str], name: str) -> Columns:
        def compute(start: int) -> Iterator[Arrays]:
            table = frozen_texts(self._load(), sentences, cache=self._cache, role=name, progress=self._progress)
            yield from self._embed(table, start, side="text")

        return self._cached(name, sentences, compute)

    def _embed(self, table: Table, start: int, *, side: str) -> Iterator[Arrays]:
        model = self._load()
        for rows in row_blocks(len(table) - start, _ROWS):
            part = Table(table.take(rows + start))
            yield {"embedding": embed_table(model, part, side=side, device=self._device).astype(np.float16)}

    def _cached(self, name: str, keys: Sequence[str], compute: object, *, of: str = "") -> Columns:
        return cached_arrays(
            self._cache / "teachers",
            name,
            keys,
            compute,  # type: ignore[arg-type]
            version=f"{self._version}/{of}" if of else self._version,
            progress=counter(self._progress, f"{self._folder.name}: {name}", len(keys)),
        )

    def _load(self) -> TrainableEncoder:
        if self._model is None:
            self._model = load_trained(self._folder, device=self._device)
        return self._model
