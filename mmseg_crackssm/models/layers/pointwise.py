"""1×1 convolutions of few channels."""

import torch
import torch.nn as nn
from torch import Tensor


def pointwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1
) -> Tensor:
    """A 1×1 convolution, as matrix products.

    On a CPU oneDNN's convolutions take several times as long where the
    channels are too few for its blocks.

    Args:
        x: Map (B, C, H, W).
        weight: (C', C / groups).
        bias: (C'), or None.
        groups: Number of groups of channels.

    Returns:
        (B, C', H, W), contiguous.
    """
    batch, size = x.shape[0], x.shape[2:]
    x = x.flatten(2).unflatten(1, (groups, -1)).flatten(0, 1)
    # Of every image and group of channels: (B * groups, C' / groups, ...).
    weight = _repeat(weight.unflatten(0, (groups, -1)), batch)
    if bias is None:
        y = torch.bmm(weight, x)
    else:
        bias = _repeat(bias.view(groups, -1, 1), batch)
        y = torch.baddbmm(bias, weight, x)
    return y.view(batch, groups * y.shape[1], *size)


class PointwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with a 1×1 kernel, computed by :func:`pointwise`.

    Args:
        in_channels: Channels C.
        out_channels: Channels C'.
        groups: Number of groups of channels.
        bias: Whether there is a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size=1, groups=groups, bias=bias
        )

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        # What nn.Conv2d and the folding of normalisations call.
        return pointwise(input, weight.flatten(1), bias, groups=self.groups)


def _repeat(x: Tensor, batch: int) -> Tensor:
    """(groups, ...) for each image: (batch * groups, ...)."""
    return x.expand(batch, *x.shape).flatten(0, 1)
