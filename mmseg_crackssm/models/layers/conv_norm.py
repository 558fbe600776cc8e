"""Convolutions that take the normalisation behind them into their weights."""

import torch.nn as nn
from mmcv.cnn import ConvModule as MMCVConvModule
from mmcv.cnn.bricks.conv_module import efficient_conv_bn_eval_forward
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .pointwise import PointwiseConv2d

_PLAIN_CONVS = (nn.Conv2d, PointwiseConv2d)


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
    if is_foldable(conv, norm):
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


def is_foldable(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether :func:`conv_norm` takes the normalisation into the weights.

    Args:
        conv: The convolution.
        norm: The normalisation.
    """
    return (
        is_plain_conv(conv)
        and isinstance(norm, _BatchNorm)
        and not norm.training
        and norm.running_var is not None
        and not has_hooks(norm)
    )


def is_plain_conv(module: nn.Module) -> bool:
    """Whether its weights say all that a module does.

    Other subclasses of ``Conv2d`` may do something else with them, and hooks
    wait for the module's output.

    Args:
        module: Any.
    """
    return type(module) in _PLAIN_CONVS and not has_hooks(module)


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks wait for a module's forward.

    Args:
        module: Any.
    """
    return bool(module._forward_hooks or module._forward_pre_hooks)
