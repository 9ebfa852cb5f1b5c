"""Detectors of torchvision, which know the kinds of things that they were trained for."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.encoders import ImageLike, load_rgb, near_matches, resolve_device
from mmalign.errors import EncoderSpecError, ModelUnavailableError
from mmalign.regions.detectors import MAX_DETECTIONS, as_regions, check_request
from mmalign.types import Region

if TYPE_CHECKING:
    import torch

_PROBE_SECONDS = 5.0
_SCORES = "roi_heads.box_predictor.cls_score.bias"


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
        self,
        image: ImageLike,
        phrases: Sequence[str] = (),
        *,
        threshold: float | None = None,
        most: int = MAX_DETECTIONS,
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
