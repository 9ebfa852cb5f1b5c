"""The pictures of a training: which can be used, their frozen arrays, and a batch of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.encoders import compute_alone, default_workers, load_rgb, prefetch_batches
from mmalign.errors import DecodeError
from mmalign.training.cache import Columns, Table, cached_arrays
from mmalign.training.contrastive.augment import fresh_view, make_view
from mmalign.training.contrastive.model import Arrays, TrainableEncoder
from mmalign.training.manifest import CaptionedFile
from mmalign.types import Skip

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, the rows done so far and the rows in all."""

# Pictures that one worker thread of a processor runs at once.
_ALONE = 4
_BATCH = 32


def usable_pictures(
    pictures: Sequence[CaptionedFile], *, cache: Path, role: str, progress: Progress | None = None
) -> tuple[list[CaptionedFile], list[Skip]]:
    """Decode every picture once, so that no training stops at a broken one; remembered by name and size.

    Args:
        pictures: The pictures.
        cache: Where to remember which are sound.
        role: Names the pictures in the progress.
        progress: Told of every picture.

    Returns:
        Those that can be decoded, in order, and the others with the reason.
    """
    path = cache / "decodable.jsonl"
    known: set[str] = set()
    if path.is_file():
        known = {line for line in path.read_text(encoding="utf-8").splitlines() if line}
    cache.mkdir(parents=True, exist_ok=True)
    good: list[CaptionedFile] = []
    skips: list[Skip] = []
    with path.open("a", encoding="utf-8") as stream, ThreadPoolExecutor(default_workers()) as pool:
        keys = [picture_key(picture) for picture in pictures]
        reasons = pool.map(lambda picture, key: None if key in known else _fault(picture.path), pictures, keys)
        for done, (picture, key, reason) in enumerate(zip(pictures, keys, reasons, strict=True), 1):
            if reason is None:
                good.append(picture)
                if key not in known:
                    stream.write(key + "\n")
            else:
                skips.append(Skip(uri=picture.path, reason=reason))
            if progress is not None:
                progress(f"checking {role} pictures", done, len(pictures))
    return good, skips


def picture_key(picture: CaptionedFile) -> str:
    """What decides a picture's pixels, as far as can be told without reading it: its path and its size in bytes."""
    try:
        size = Path(picture.path).stat().st_size
    except OSError:
        size = -1
    return json.dumps([picture.path, size])


def _fault(path: str) -> str | None:
    try:
        with Image.open(path) as opened:
            # A JPEG is decoded at an eighth of its size, which reads every byte and takes a fraction of the time.
            opened.draft("RGB", (1, 1))
            opened.load()
    except Exception:  # load_rgb knows which of them mean what
        try:
            load_rgb(path)
        except DecodeError as error:
            return error.reason
    return None


def frozen_pictures(
    model: TrainableEncoder,
    pictures: Sequence[CaptionedFile],
    *,
    view: str,
    cache: Path,
    role: str,
    progress: Progress | None = None,
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


def counter(progress: Progress | None, name: str, total: int) -> Callable[[int], None]:
    """Turn numbers of further rows into calls of `progress` with the sum so far."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(name, done, total)

    return count


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
