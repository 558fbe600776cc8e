"""Convolutions that take the normalisation behind them into their weights."""

from itertools import chain

import torch.nn as nn
from mmcv.cnn import ConvModule as MMCVConvModule
from mmcv.cnn.bricks.conv_module import efficient_conv_bn_eval_forward
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


def conv_norm(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``, in one pass over the map where that is possible.

    A batch normalisation that is not in training is an affine map of each
    channel: it is taken into the weights on the fly, which costs next to
    nothing and is differentiable. The modules themselves run otherwise, and
    where hooks wait for their outputs.

    Args:
        x: Map (B, C_in, H, W).
        conv: The convolution.
        norm: The normalisation.

    Returns:
        (B, C_out, H', W').
    """
    if _is_foldable(conv, norm):
        return efficient_conv_bn_eval_forward(norm, conv, x)
    return norm(conv(x))


class ConvNorm(nn.Sequential):
    """A convolution ``conv`` and its normalisation ``norm``."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W')."""
        return conv_norm(x, self.conv, self.norm)


class ConvModule(MMCVConvModule):
    """mmcv's ``ConvModule``, with :func:`conv_norm`.

    mmcv's own option ``efficient_conv_bn_eval`` replaces the forward of the
    convolution while it runs, which ``torch.compile`` and ``torch.export``
    cannot follow.
    """

    def forward(
        self, x: Tensor, activate: bool = True, norm: bool = True
    ) -> Tensor:
        """Convolve, normalise, activate.

        Args:
            x: Map (B, C_in, H, W).
            activate: Whether to activate.
            norm: Whether to normalise.

        Returns:
            (B, C_out, H', W').
        """
        if (
            not norm
            or not self.with_norm
            or self.with_explicit_padding
            or self.order != ('conv', 'norm', 'act')
        ):
            return super().forward(x, activate=activate, norm=norm)
        x = conv_norm(x, self.conv, self.norm)
        if activate and self.with_activation:
            x = self.activate(x)
        return x


def _is_foldable(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        # no subclass, which may do something else with its weights
        type(conv) is nn.Conv2d
        and isinstance(norm, _BatchNorm)
        and not norm.training
        and norm.running_var is not None
        and not any(
            chain(
                conv._forward_hooks,
                conv._forward_pre_hooks,
                norm._forward_hooks,
                norm._forward_pre_hooks,
            )
        )
    )
