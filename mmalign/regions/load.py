"""From the name of a detector to the detector. Loading one imports torch."""

from __future__ import annotations

from pathlib import Path

from mmalign.errors import EncoderSpecError
from mmalign.regions.detectors import Detector

_FORMS = "torchvision:MODEL, torchvision:MODEL@/path/to/weights.pth, hf:ORGANISATION/MODEL or hf:/path/to/folder"


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
        from mmalign.regions.torchvision_detectors import TorchvisionDetector

        model, at, path = rest.partition("@")
        return TorchvisionDetector(model, weights=Path(path) if at and path else None, device=device)
    if colon and rest and family == "hf":
        from mmalign.regions.hf_detectors import load_hf_detector

        return load_hf_detector(rest, device=device)
    raise EncoderSpecError(f"no detector is called {spec!r}; the forms are: {_FORMS}")
