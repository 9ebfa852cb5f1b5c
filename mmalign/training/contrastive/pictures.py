"""The pictures of a contrastive training: their frozen arrays, and a batch of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import compute_alone, default_workers, load_rgb, prefetch_batches
from mmalign.training.cache import Arrays, Columns, Table, cached_arrays
from mmalign.training.contrastive.augment import fresh_view, make_view
from mmalign.training.contrastive.model import TrainableEncoder
from mmalign.training.manifest import CaptionedFile
from mmalign.training.progress import counter
from mmalign.training.usable_pictures import picture_key
from mmalign.utils import ShowProgress

# Pictures that one worker thread of a processor runs at once.
_ALONE = 4
_BATCH = 32


def frozen_pictures(
    model: TrainableEncoder,
    pictures: Sequence[CaptionedFile],
    *,
    view: str,
    cache: Path,
    role: str,
    progress: ShowProgress | None = None,
) -> Columns:
    """Run the frozen part on one view of every picture, or read what an earlier run kept.

    Args:
        model: The model.
        pictures: n pictures.
        view: `plain`, `flip` or `crop-N`.
        cache: Where the arrays are kept.
        role: Names the pictures in the files and the progress.
        progress: Told of every block.

    Returns:
        Arrays of shape (n, ...), mapped from the cache.

    Raises:
        DecodeError: A picture cannot be decoded.
        StorageError: The disk refused.
    """

    def compute(start: int) -> Iterator[Arrays]:
        items = [(picture.path, view, picture.name) for picture in pictures[start:]]
        return frozen_stream(model, items, batch_size=_BATCH)

    return cached_arrays(
        cache / hashlib.sha256(model.image_version.encode()).hexdigest()[:12],
        f"{role}-{view}",
        [picture_key(picture) for picture in pictures],
        compute,
        version=f"{model.image_version}/{view}",
        progress=counter(progress, f"{role} {view}", len(pictures)),
    )


def frozen_stream(
    model: TrainableEncoder, items: Sequence[tuple[str, str, str]], *, batch_size: int
) -> Iterator[Arrays]:
    """Run the frozen part on views of pictures, in order, while worker threads prepare the next ones.

    Args:
        model: The model.
        items: Path, view and seed of each.
        batch_size: Rows a block.

    Yields:
        Named arrays of shape (b, ...), 1 <= b <= batch_size.

    Raises:
        DecodeError: A picture cannot be decoded; the blocks before it are yielded first.
    """

    def prepare(item: tuple[str, str, str]) -> NDArray[np.uint8]:
        path, view, seed = item
        return model.prepare_image(make_view(load_rgb(path), view=view, seed=seed))

    def freeze(group: Sequence[tuple[str, str, str]]) -> Arrays:
        compute_alone()
        return model.freeze_images(np.stack([prepare(item) for item in group]))

    workers = default_workers()
    if model.freezes_lists:
        for batch in prefetch_batches(items, prepare, batch_size=batch_size, workers=workers):
            yield model.freeze_images(batch)  # type: ignore[arg-type]  # see TrainableEncoder.freezes_lists
    elif model_device_type(model) == "cpu":
        groups = [items[start : start + _ALONE] for start in range(0, len(items), _ALONE)]
        for rows in prefetch_batches(groups, freeze, batch_size=max(1, batch_size // _ALONE), workers=workers):
            yield {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    else:
        for batch in prefetch_batches(items, prepare, batch_size=batch_size, workers=workers):
            yield model.freeze_images(np.stack(batch))


def model_device_type(model: TrainableEncoder) -> str:
    """The kind of device that a model's weights lie on, such as `cpu` or `cuda`."""
    tensor = next(iter([*model.parameters(), *model.buffers()]), None)
    return "cpu" if tensor is None else str(tensor.device.type)


class CachedPictures:
    """Frozen arrays of a fixed set of views, of which each batch takes one at random for each picture.

    Args:
        views: The table of each view.
    """

    def __init__(self, views: Sequence[Table]) -> None:
        self._views = list(views)

    def batch(self, rows: NDArray[np.int64], *, epoch: int, draw: np.random.Generator) -> Arrays:
        """Return the frozen arrays of some pictures, shape (b, ...), for one step of an epoch."""
        if len(self._views) == 1:
            return self._views[0].take(rows)
        chosen = draw.integers(len(self._views), size=len(rows))
        order = np.argsort(chosen, kind="stable")
        groups = [view.take(rows[chosen == number]) for number, view in enumerate(self._views)]
        back = np.argsort(order, kind="stable")
        return {name: np.concatenate([group[name] for group in groups])[back] for name in groups[0]}


class FreshPictures:
    """Pictures that are decoded and augmented anew in every epoch.

    Args:
        model: Whose frozen part they go through.
        pictures: The pictures.
        views: Some of `plain`, `flip`, `crop`.
        seed: With the epoch and the picture, decides each augmentation.
    """

    def __init__(
        self, model: TrainableEncoder, pictures: Sequence[CaptionedFile], *, views: Sequence[str], seed: int
    ) -> None:
        self._model, self._pictures, self._views, self._seed = model, pictures, views, seed

    def batch(self, rows: NDArray[np.int64], *, epoch: int, draw: np.random.Generator) -> Arrays:
        """Return the frozen arrays of some pictures, shape (b, ...), for one step of an epoch."""
        items = []
        for row in rows:
            picture = self._pictures[row]
            seed = f"{self._seed}/{epoch}/{picture.name}"
            items.append((picture.path, fresh_view(self._views, seed=seed), seed))
        parts = list(frozen_stream(self._model, items, batch_size=len(items)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
