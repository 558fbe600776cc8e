"""Layers on NCHW maps: normalisation, projection, stems, downsampling."""

import torch.nn as nn
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor

from .conv_norm import has_hooks


# In the root registry, where mmcv's layers find it from any scope.
@MODELS.register_module('LN2d')
class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of an NCHW map.

    Runs in the precision of its weights: float32 under autocast, as on CUDA
    (autocast on the CPU would keep bfloat16). In configs,
    ``norm_cfg=dict(type='LN2d')``.

    Args:
        channels: Channels C.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) at each pixel."""
        x = x.permute(0, 2, 3, 1).to(self.weight.dtype)
        return super().forward(x).permute(0, 3, 1, 2)


class Linear2d(nn.Linear):
    """A linear layer over the channels of an NCHW map.

    Its weights have the shape (out, in). On the CPU it runs as a 1x1
    convolution: on more than one thread PyTorch gives those to oneDNN, and
    matrix products to MKL, which took twice as long on an AMD processor with
    AVX-512.
    """

    def reset_parameters(self) -> None:
        """Truncated normal weights of deviation 0.02, zero bias (VMamba)."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_features, H, W) to (B, out_features, H, W)."""
        if x.device.type == 'cpu':
            return F.conv2d(x, as_kernel(self.weight), self.bias)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def split_outputs(
    layer: nn.Module, x: Tensor, parts: int
) -> tuple[Tensor, ...]:
    """``layer(x).chunk(parts, dim=1)``.

    Of a :class:`Linear2d` on the CPU each part lies in one piece: what reads
    it does not make a copy first.

    Args:
        layer: Maps (B, C, H, W) to (B, C', H, W).
        x: (B, C, H, W).
        parts: Divides C'.

    Returns:
        ``parts`` maps (B, C' / parts, H, W).
    """
    is_plain = type(layer) is Linear2d and not has_hooks(layer)
    if x.device.type != 'cpu' or not is_plain:
        return layer(x).chunk(parts, dim=1)
    biases = [None] * parts
    if layer.bias is not None:
        biases = layer.bias.chunk(parts)
    return tuple(
        F.conv2d(x, as_kernel(weight), bias)
        for weight, bias in zip(layer.weight.chunk(parts), biases, strict=True)
    )


def as_kernel(weight: Tensor) -> Tensor:
    """The weights (out, in) of a linear layer as those of a 1×1 convolution.

    Args:
        weight: (out, in).

    Returns:
        (out, in, 1, 1), a view.
    """
    return weight.view(*weight.shape, 1, 1)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pad the right and bottom of (B, C, H, W) to a multiple."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom or right:
        x = F.pad(x, (0, right, 0, bottom))
    return x


class PatchifyStem(nn.Module):
    """Patch embedding v1: one 4x4 convolution of stride 4, then LayerNorm.

    The input is padded on the right and at the bottom where its size is not
    a multiple of the patch, so that no pixel is cut off.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the output.
        patch_size: Side of a patch.
    """

    def __init__(
        self, in_channels: int, channels: int, patch_size: int = 4
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(
            in_channels, channels, kernel_size=patch_size, stride=patch_size
        )
        self.norm = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, in_channels, H, W) to (B, channels, ⌈H/4⌉, ⌈W/4⌉)."""
        return self.norm(self.proj(pad_to_multiple(x, self.patch_size)))


class ConvStem(nn.Module):
    """Patch embedding v2: two 3x3 convolutions of stride 2.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the output; the first convolution gives half.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, stride=2, padding=1)
        self.norm1 = LayerNorm2d(hidden)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(hidden, channels, 3, stride=2, padding=1)
        self.norm2 = LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Embed (B, in_channels, H, W) to (B, channels, ⌈H/4⌉, ⌈W/4⌉)."""
        x = self.act(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))


class PatchMerging2d(nn.Module):
    """Downsampling v1: the four pixels of a 2x2 patch become channels.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(4 * in_channels)
        self.reduction = Linear2d(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, ⌈H/2⌉, ⌈W/2⌉)."""
        # (B, H/2, row, W/2, column, C)
        x = pad_to_multiple(x, 2).permute(0, 2, 3, 1)
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        # The published weights take the pixels in the order of columns. One
        # copy, and in the backward another: slices would have a zeroed map
        # each there.
        patch = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(patch.permute(0, 3, 1, 2)))


class ConvDownsample(nn.Module):
    """Downsampling v3: a 3x3 convolution of stride 2, then LayerNorm.

    Args:
        in_channels: Channels C of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, 3, stride=2, padding=1
        )
        self.norm = LayerNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, ⌈H/2⌉, ⌈W/2⌉)."""
        return self.norm(self.conv(x))
