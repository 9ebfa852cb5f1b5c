"""From a manifest of phrases and boxes to the weight file of a grounding head."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmalign.encoders import Encoder, TwoTowerEncoder, load_encoder
from mmalign.errors import InputError
from mmalign.evaluation import PhrasePicture, file_half, read_phrases
from mmalign.grounding import Grounding, GroundingHead, GroundingNet, NetSize, Scoring, export_head
from mmalign.regions import propose_regions
from mmalign.training.grounding.batches import HeadData
from mmalign.training.grounding.config import HeadTraining
from mmalign.training.grounding.data import Basis, PictureCells, cached_cells
from mmalign.training.grounding.fit_head import train_head
from mmalign.training.grounding.scoring import fit_scoring
from mmalign.training.run_dir import claim
from mmalign.types import Box, gives_json
from mmalign.utils import track

HEAD_FILE = "grounding-head.safetensors"


@dataclass(frozen=True, slots=True)
class HeadReport:
    """What came of a training.

    Attributes:
        path: The weight file.
        sha256: Its digest.
        pictures: How many pictures it learnt from.
        phrases: How many phrases of those.
        losses: Of the last epoch.
        scoring: How votes become scores.
    """

    path: Path
    sha256: str
    pictures: int
    phrases: int
    losses: dict[str, Any]
    scoring: Scoring

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {**asdict(self), "path": str(self.path)}


def train_grounding(
    manifest: str | os.PathLike[str],
    out: Path,
    *,
    split: str | None = "train",
    tune: str | os.PathLike[str] | None = None,
    encoder: str | Encoder = "lite",
    cache: Path | None = None,
    how: HeadTraining | None = None,
    most: int | None = None,
    progress: bool = True,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
) -> HeadReport:
    """Train a grounding head on the phrases and boxes of a manifest.

    Args:
        manifest: A manifest as for `read_phrases`.
        out: The run's folder, for the weight file; one that holds a run of the same settings is gone on with.
        split: Which part of it to learn from; all of it where None.
        tune: Another manifest, of which one half (`file_half` 0) is used to fit scores and probabilities; None to
            keep the defaults.
        encoder: A `lite` encoder or its spec.
        cache: Folder for the features, which runs may share; `out / "cache"` where None.
        how: How to train.
        most: Learn from so many of the first pictures at most.
        progress: Whether to show a progress bar over the features.
        log: Told the losses of each epoch.

    Returns:
        The report.

    Raises:
        SourceError: A manifest cannot be read.
        InputError: No such split, no phrases, another encoder than a `lite`, or a picture to tune on that was
            learnt from; or the folder holds another run.
        StorageError: The disk refused.
        TrainingInterrupted: Ctrl-C; the state is saved.
    """
    model = load_encoder(encoder)
    if not isinstance(model, TwoTowerEncoder):
        raise InputError(f"the grounding head reads the maps of a lite encoder, got {model.name}")
    how = how or HeadTraining()
    pictures = read_phrases(manifest, split=split)[:most]
    tuned = [] if tune is None else [p for p in read_phrases(tune) if file_half(p.uri) == 0]
    if both := {_name(p) for p in pictures} & {_name(p) for p in tuned}:
        raise InputError(f"{len(both)} pictures would be learnt from and tuned on, such as {min(both)}; use two sets")
    settings = {"manifest": os.fspath(manifest), "split": split, "most": most, "encoder": model.fingerprint}
    claim(out, {**settings, "how": asdict(how)}, known=lambda there: there)
    with track("Looking", len(pictures), enabled=progress) as advance:
        cells = cached_cells(cache or out / "cache", model, pictures, advance=advance)
    data = head_data(cells, model)
    size = NetSize(inputs=data.cells.shape[-1], text=data.dim)
    head = train_head(data, size=size, how=how, folder=out, log=log)
    path = out / HEAD_FILE
    notes = {
        "license": "Apache-2.0",
        "provenance": f"trained on {len(data.pictures)} pictures; docs/align-model.md",
        "training": json.dumps(asdict(how)),
    }
    tensors, full = folded(head.net, cells.basis)

    def export(scoring: Scoring) -> str:
        return export_head(path, tensors, size=full, scoring=scoring, encoder=model.fingerprint, metadata=notes)

    scoring = Scoring()
    sha256 = export(scoring)
    if tuned:
        scoring = fit_scoring(tuned, _looker(GroundingHead(path), model, tuned), propose=_proposer(tuned))
        sha256 = export(scoring)
    phrases = sum(len(picture.phrases) for picture in data.pictures)
    return HeadReport(path, sha256, len(data.pictures), phrases, head.losses, scoring)


def head_data(cells: PictureCells, encoder: TwoTowerEncoder) -> HeadData:
    """Bring together what the head learns from.

    Args:
        cells: The cells of the pictures.
        encoder: The encoder.

    Returns:
        The data, without pictures that cannot be decoded.

    Raises:
        InputError: None of them can.
    """
    features, sizes = cells.cells, cells.sizes
    there = np.flatnonzero(sizes[:, 0] > 0)
    if not len(there):
        raise InputError(f"none of the {len(sizes)} pictures to learn from can be decoded")
    pictures = [cells.pictures[int(index)] for index in there]
    phrases = sorted({phrase for picture in pictures for phrase in picture.phrases})
    basis, dim = cells.basis, encoder.dim
    scale = basis.matrix[-1, -1]
    return HeadData(
        pictures=pictures,
        sizes=np.asarray(sizes)[there],
        # Mapped, and not read into memory, where no picture was left out.
        cells=features if len(there) == len(features) else np.asarray(features)[there],
        texts=dict(zip(phrases, encoder.encode_text(phrases), strict=True)),
        dim=dim,
        shared_mean=basis.mean[-dim:] * scale,
    )


def folded(net: GroundingNet, basis: Basis) -> tuple[dict[str, np.ndarray[Any, Any]], NetSize]:
    """Let the network read whole features: the basis becomes a part of its first layer.

    Args:
        net: A network on reduced features.
        basis: How they were reduced.

    Returns:
        Its tensors by name, float32, and its size.
    """
    tensors = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    # Rounded as the file will keep it, so that the bias takes the rounded mean away.
    weight = (tensors["cells.weight"] @ basis.matrix).astype(np.float16).astype(np.float32)
    tensors["cells.bias"] = tensors["cells.bias"] - weight @ basis.mean
    tensors["cells.weight"] = weight
    numbers = {**asdict(net.size), "inputs": weight.shape[1]}
    return tensors, NetSize(**numbers)


def _looker(
    head: GroundingHead, encoder: TwoTowerEncoder, pictures: Sequence[PhrasePicture]
) -> Callable[[int, Sequence[str]], Grounding | None]:
    def look(number: int, phrases: Sequence[str]) -> Grounding | None:
        try:
            with Image.open(pictures[number].uri) as image:
                return head.ground(encoder, image.convert("RGB"), phrases)
        except OSError:
            return None

    return look


def _proposer(pictures: Sequence[PhrasePicture]) -> Callable[[int], list[Box]]:
    def propose(number: int) -> list[Box]:
        with Image.open(pictures[number].uri) as image:
            return [region.box for region in propose_regions(np.asarray(image.convert("RGB")))]

    return propose


def _name(picture: PhrasePicture) -> str:
    return picture.uri.replace("\\", "/").rsplit("/", 1)[-1]
