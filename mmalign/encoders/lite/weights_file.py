"""The weight file of `lite@2`: what is in it, how it is written after training, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders.lite import efficientnet, minilm
from mmalign.encoders.lite.packaged_weights import check_digest
from mmalign.encoders.lite.quantised import Tensor, quantise, read_tensors, write_tensors
from mmalign.encoders.lite.towers import POOLING, PictureInput
from mmalign.errors import InputError, ModelUnavailableError

FORMAT = "mmalign lite@2"
PICTURE_INPUT = PictureInput(size=320, centre=1.0)
"""How `lite@2` looks at a picture."""
POOLING_NOTE = f"means of layers {POOLING.means}, maxima of layers {POOLING.maxima}"
"""Names the text pooling in the file and in fingerprints."""

_SIDES = ("text", "image", "text_adapter", "image_adapter")
_NOTES = ("license", "provenance")
# MiniLM's feed-forward layers hold single large weights, which would spoil the scale of a whole row.
_GROUP = 64
# The wide early layers hold few weights and pass every error on: as int8 they cost more accuracy than all the rest
# together, as float16 0.4 MB.
_EARLY = ("conv_stem.", "blocks.0.", "blocks.1.", "blocks.2.", "blocks.3.")


@dataclass(frozen=True, slots=True)
class Lite2Weights:
    """The tensors of `lite@2`, plain or quantised, by name.

    Attributes:
        text: Those of `minilm.minilm_shapes`.
        image: Those of `efficientnet.efficientnet_shapes`.
        text_adapter: Those of `Adapter`.
        image_adapter: Those of `Adapter`, with or without the class prior.
        metadata: The texts of the file's header.
    """

    text: Mapping[str, Tensor]
    image: Mapping[str, Tensor]
    text_adapter: Mapping[str, Tensor]
    image_adapter: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def export_lite2(
    path: Path,
    *,
    text_state: Mapping[str, NDArray[Any]],
    image_state: Mapping[str, NDArray[Any]],
    text_adapter: Mapping[str, NDArray[Any]],
    image_adapter: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
) -> str:
    """Write trained weights to the one file that `lite@2` loads.

    Matrices of the text tower, the classifier and the prior, and the late pointwise convolutions become int8 with a
    scale a row, or for each 64 values within the transformer's layers; adapters, depthwise and early convolutions
    float16; biases and norms stay float32.

    Args:
        path: The safetensors file.
        text_state: State of the text tower, names and shapes of `minilm.minilm_shapes`; a pooler and position ids
            are left out.
        image_state: State of the picture tower with batch norm folded, names and shapes of
            `efficientnet.efficientnet_shapes`; timm's own `classifier.*` is left out.
        text_adapter: `linear.weight` (dim, 1920), `linear.bias` (dim,), any standardisation folded in; perhaps
            `hidden.weight` (units, 1920), `hidden.bias` (units,), `output.weight` (dim, units).
        image_adapter: The same with 2120 inputs; and perhaps the class prior: `classifier.weight` (classes, 1280)
            and `classifier.bias` (classes,), both divided by the temperature, and `prior.weight` (classes, dim).
        metadata: `license`, `provenance` and what else belongs into the header.

    Returns:
        SHA-256 of the file as 64 hex digits.

    Raises:
        InputError: A tensor is missing, unknown, of another shape, not finite, or too large for float16; or a note
            is missing.
    """
    sides = dict(zip(_SIDES, (text_state, image_state, text_adapter, image_adapter), strict=True))
    stored: dict[str, Tensor] = {
        f"{side}/{name}": _stored(side, name, np.asarray(tensor))
        for side, tensors in sides.items()
        for name, tensor in tensors.items()
        if not _left_out(side, name)
    }
    if missing := [note for note in _NOTES if not metadata.get(note)]:
        raise InputError(f"expected the notes {', '.join(_NOTES)} in the metadata, {', '.join(missing)} missing")
    if problem := _problem(_split(stored, metadata)):
        raise InputError(f"these are no weights of lite@2: {problem}")
    return write_tensors(path, stored, metadata={**metadata, **_config()})


def load_lite2(path: Path, *, sha256: str, remedy: str) -> Lite2Weights:
    """Map the weight file into memory, once its bytes are found to be the expected ones.

    Args:
        path: A file that `export_lite2` wrote.
        sha256: Hex digest of the file.
        remedy: What to do when it cannot be used, for the error's text.

    Returns:
        The weights, nothing of them converted yet.

    Raises:
        ModelUnavailableError: The file is missing, has other bytes, or holds another model's weights.
    """
    check_digest(path, sha256, remedy=remedy)
    try:
        tensors, metadata = read_tensors(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(f"{path} is not a weight file of lite@2 ({error}); {remedy}") from error
    weights = _split(tensors, metadata)
    problem = next((f"{name} is {metadata.get(name)!r}, expected {wanted!r}"
                    for name, wanted in _config().items() if metadata.get(name) != wanted), None)  # fmt: skip
    problem = problem or _problem(weights)
    if problem is not None:
        raise ModelUnavailableError(f"{path} is not a weight file of this lite@2: {problem}; {remedy}")
    return weights


def _config() -> dict[str, str]:
    """What weights and code have to agree on beside the shapes."""
    return {"format": FORMAT, "pooling": POOLING_NOTE, "preprocessing": PICTURE_INPUT.note}


def _left_out(side: str, name: str) -> bool:
    ignored = {"text": ("pooler.", "embeddings.position_ids"), "image": ("classifier.",)}
    return name.startswith(ignored.get(side, ()))


def _stored(side: str, name: str, tensor: NDArray[Any]) -> Tensor:
    """The tensor in the form in which the file keeps it."""
    if not np.isfinite(tensor).all():
        raise InputError(f"{side}: {name} holds NaN or infinite values")
    if tensor.ndim <= 1:
        return tensor.astype(np.float32)
    exact = side.endswith("adapter") and not name.startswith(("classifier.", "prior."))
    exact = exact or (side == "image" and (".conv_dw." in name or name.startswith(_EARLY)))
    if not exact:
        return quantise(tensor, group=_GROUP if side == "text" and name.startswith("encoder.") else None)
    if np.abs(tensor).max(initial=0) > np.finfo(np.float16).max:
        raise InputError(f"{side}: {name} holds values that float16 cannot; train with more weight decay")
    return tensor.astype(np.float16)


def _split(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Lite2Weights:
    sides: dict[str, dict[str, Tensor]] = {side: {} for side in _SIDES}
    for name, tensor in tensors.items():
        side, _, own = name.partition("/")
        sides.setdefault(side, {})[own] = tensor
    return Lite2Weights(**{side: sides[side] for side in _SIDES}, metadata=metadata)


def _problem(weights: Lite2Weights) -> str | None:
    """The first thing that is wrong with the weights, or None."""
    dim = _rows(weights.text_adapter.get("linear.weight"))
    text_adapter = _adapter_shapes(weights.text_adapter, inputs=POOLING.features, dim=dim)
    image_adapter = _adapter_shapes(weights.image_adapter, inputs=efficientnet.FEATURES, dim=dim)
    for side, found, shapes in (
        ("text", weights.text, minilm.minilm_shapes()),
        ("image", weights.image, efficientnet.efficientnet_shapes()),
        ("text_adapter", weights.text_adapter, text_adapter),
        ("image_adapter", weights.image_adapter, image_adapter),
    ):
        for name, shape in shapes.items():
            if name not in found:
                return f"{side}: the tensor {name} of shape {shape} is missing"
            if found[name].shape != shape:
                return f"{side}: {name} should have the shape {shape}, it has {found[name].shape}"
        if unknown := sorted(found.keys() - shapes.keys()):
            return f"{side}: {', '.join(unknown[:3])} mean nothing here"
    return None


def _rows(tensor: Tensor | None) -> int:
    return tensor.shape[0] if tensor is not None and tensor.shape else 0


def _adapter_shapes(tensors: Mapping[str, Tensor], *, inputs: int, dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (dim, inputs), "linear.bias": (dim,)}
    if any(name.startswith(("hidden.", "output.")) for name in tensors):
        units = _rows(tensors.get("hidden.weight"))
        shapes |= {"hidden.weight": (units, inputs), "hidden.bias": (units,), "output.weight": (dim, units)}
    if inputs == efficientnet.FEATURES and any(name.startswith(("classifier.", "prior.")) for name in tensors):
        classes = _rows(tensors.get("classifier.weight"))
        width = efficientnet.MAP_CHANNELS
        shapes |= {"classifier.weight": (classes, width), "classifier.bias": (classes,), "prior.weight": (classes, dim)}
    return shapes
