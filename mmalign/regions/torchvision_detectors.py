"""Detectors: what proposes regions of a picture where one has a model for it. Loading one imports torch."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mmalign.encoders.base import ImageLike
from mmalign.encoders.device import resolve_device
from mmalign.encoders.open_clip_source import near_matches
from mmalign.encoders.pictures import load_rgb
from mmalign.errors import EncoderSpecError, InputError, ModelUnavailableError
from mmalign.types import Box, Region

if TYPE_CHECKING:
    import torch

MOST = 100
"""Regions of a picture, by default."""
_FORMS = "torchvision:MODEL, torchvision:MODEL@/path/to/weights.pth, hf:ORGANISATION/MODEL or hf:/path/to/folder"
_PROBE_SECONDS = 5.0
_SCORES = "roi_heads.box_predictor.cls_score.bias"


class Detector(Protocol):
    """Proposes regions of a picture, each with a label and a score.

    Attributes:
        name: The spec that loads it again.
        open_vocabulary: Whether it looks for the phrases that it is given; else it knows a fixed list of classes.
    """

    @property
    def name(self) -> str:
        """Spec that loads it again."""
        ...

    @property
    def open_vocabulary(self) -> bool:
        """Whether it looks for given phrases."""
        ...

    def detect(
        self, image: ImageLike, phrases: Sequence[str] = (), *, threshold: float | None = None, most: int = MOST
    ) -> tuple[Region, ...]:
        """Propose regions.

        Args:
            image: A picture of any PIL mode, or a path.
            phrases: What to look for; ignored by a detector with classes of its own.
            threshold: Least score, 0 to 1; None for the model's usual one.
            most: How many regions at most.

        Returns:
            Regions of source `detector` in pixels of the picture, the surest first. The label is the class, or the
            phrase word for word.

        Raises:
            DecodeError: The path cannot be decoded.
            InputError: No phrases for a detector that needs them, a threshold outside 0 to 1, or `most` below 1.
        """
        ...


def load_detector(spec: str, *, device: str | None = None) -> Detector:
    """Load the detector that a spec names.

    Args:
        spec: `torchvision:MODEL` (such as `torchvision:fasterrcnn_mobilenet_v3_large_320_fpn`) with its published
            weights, `torchvision:MODEL@/path/to/weights.pth`, or `hf:NAME` for a model of the Hugging Face hub or a
            folder that `save_pretrained` wrote: OWL-ViT, OWLv2 and Grounding DINO, which look for phrases, and DETR
            and its kin, which know classes.
        device: A torch device such as `cpu` or `cuda:1`; None for CUDA where there is one, else the processor.

    Returns:
        The detector.

    Raises:
        EncoderSpecError: The spec means nothing; the text lists near matches.
        ModelUnavailableError: The weights are not on this machine and cannot be fetched, or do not fit the model.
        InputError: A device that this machine does not have.

    Example:
        >>> load_detector("hf:google/owlvit-base-patch32").open_vocabulary  # doctest: +SKIP
        True
    """
    family, colon, rest = spec.strip().partition(":")
    if colon and rest and family == "torchvision":
        model, at, path = rest.partition("@")
        return TorchvisionDetector(model, weights=Path(path) if at and path else None, device=device)
    if colon and rest and family == "hf":
        from mmalign.regions.hf_detectors import load_hf_detector

        return load_hf_detector(rest, device=device)
    raise EncoderSpecError(f"no detector is called {spec!r}; the forms are: {_FORMS}")


class TorchvisionDetector:
    """A detector of torchvision, which knows the 80 kinds of things of COCO, or those of its weights.

    Args:
        model: A name of `torchvision.models.list_models(module=torchvision.models.detection)`.
        weights: A file with its state dict; None for the published weights. Only tensors are read from it.
        device: A torch device; None for CUDA where there is one, else the processor.

    Raises:
        EncoderSpecError: No such model; the text lists near matches.
        ModelUnavailableError: Weights that are missing, out of reach, or of another model.
    """

    open_vocabulary = False

    def __init__(self, model: str, *, weights: Path | None = None, device: str | None = None) -> None:
        from torchvision.models import detection, get_model_weights, list_models

        known = list_models(module=detection)
        if model not in known:
            near = near_matches(model, known, most=3, cutoff=0.4) or known
            raise EncoderSpecError(f"torchvision has no detector called {model!r}; near: {', '.join(near)}")
        self.name = f"torchvision:{model}" + (f"@{weights}" if weights is not None else "")
        self._device = resolve_device(device)
        published = get_model_weights(model).DEFAULT
        state = _read_state(self.name, weights) if weights is not None else _fetch_state(self.name, published)
        categories = published.meta["categories"]
        classes = len(state[_SCORES]) if _SCORES in state else len(categories)
        self._labels = categories if classes == len(categories) else [f"class {n}" for n in range(classes)]
        self._net = _build(self.name, model, state, classes).to(self._device).eval()

    def detect(
        self, image: ImageLike, phrases: Sequence[str] = (), *, threshold: float | None = None, most: int = MOST
    ) -> tuple[Region, ...]:
        """Propose regions; see `Detector.detect`."""
        import torch
        from torchvision.transforms.functional import pil_to_tensor

        least = check_request(threshold, most, usual=0.05)
        picture = load_rgb(image)
        pixels = pil_to_tensor(picture).to(self._device).float() / 255
        with torch.inference_mode():
            found = self._net([pixels])[0]
        labels = [self._labels[number] for number in found["labels"].tolist()]
        return as_regions(found["boxes"], found["scores"], labels, picture.size, least=least, most=most)


def check_request(threshold: float | None, most: int, *, usual: float) -> float:
    """Return the least score to keep.

    Args:
        threshold: What the caller asked for, or None.
        most: How many regions the caller asked for.
        usual: The threshold of a caller who asked for none.

    Returns:
        The threshold.

    Raises:
        InputError: A threshold outside 0 to 1, or `most` below 1.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold must lie between 0 and 1, got {threshold}")
    if most < 1:
        raise InputError(f"most must be at least 1, got {most}")
    return usual if threshold is None else threshold


def as_regions(
    corners: torch.Tensor,
    scores: torch.Tensor,
    labels: Sequence[str],
    size: tuple[int, int],
    *,
    least: float,
    most: int,
) -> tuple[Region, ...]:
    """Make regions of what a model found.

    Args:
        corners: Tensor of shape (n, 4): left, top, right and bottom in pixels.
        scores: Tensor of shape (n,), 0 to 1.
        labels: n names.
        size: Width and height of the picture in pixels; boxes are cut at its edges, and those without an area left
            out.
        least: Least score.
        most: How many at most.

    Returns:
        The regions, the surest first.
    """
    width, height = size
    regions = []
    for (left, top, right, bottom), score, label in zip(corners.tolist(), scores.tolist(), labels, strict=True):
        left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        # Comparisons with NaN are false: a box or score that is not a number is left out as well.
        if score >= least and right > left and bottom > top:
            regions.append(Region(Box(left, top, right - left, bottom - top), "detector", min(score, 1.0), label))
    return tuple(sorted(regions, key=lambda region: -region.score)[:most])


def _fetch_state(spec: str, published: Any) -> dict[str, torch.Tensor]:
    import torch

    kept = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rpartition("/")[2]
    try:
        if not kept.exists():
            # The download itself knows no time limit.
            with urllib.request.urlopen(urllib.request.Request(published.url, method="HEAD"), timeout=_PROBE_SECONDS):
                pass
        state: dict[str, torch.Tensor] = published.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ModelUnavailableError(
            f"{spec} is not on this machine and could not be fetched from {published.url}: {error}. Connect once to "
            f"fetch it, or put the file at {kept}, or name it: {spec}@/path/to/weights.pth. Regions without a "
            "detector need no network: proposals"
        ) from error
    return state


def _read_state(spec: str, path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    try:
        stored = torch.load(path.expanduser(), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelUnavailableError(f"{spec}: there is no file {path}") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ModelUnavailableError(
            f"{spec}: {path} cannot be read: {str(error).splitlines()[0]}; expected a state dict saved by torch.save"
        ) from error
    state = stored.get("model", stored) if isinstance(stored, dict) else stored
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ModelUnavailableError(f"{spec}: {path} holds no state dict; save model.state_dict() with torch.save")
    return state


def _build(spec: str, model: str, state: dict[str, torch.Tensor], classes: int) -> Any:
    from torchvision.models import get_model

    net = get_model(model, weights=None, weights_backbone=None, num_classes=classes)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise ModelUnavailableError(f"{spec}: the weights are not those of {model}: {first}") from error
    return net
