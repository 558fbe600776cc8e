"""Convolutions that take the normalisation behind them into their weights."""

import torch
import torch.nn as nn
from mmcv.cnn import ConvModule as MMCVConvModule
from mmengine.dist import get_world_size
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ...ops import batch_norm_relu, serves_maps
from .pointwise import PointwiseConv2d

_PLAIN_CONVS = (nn.Conv2d, PointwiseConv2d)
_BATCH_NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def conv_norm(
    x: Tensor,
    conv: nn.Module,
    norm: nn.Module,
    activation: nn.Module | None = None,
) -> Tensor:
    """``activation(norm(conv(x)))``, in few passes over the map.

    Args:
        x: Map (B, C_in, H, W).
        conv: The convolution.
        norm: The normalisation.
        activation: The activation, or None.

    Returns:
        (B, C_out, H', W').
    """
    folded = fold_norm(x, conv, norm)
    if folded is not None:
        x = conv._conv_forward(x, *folded)
    else:
        x = conv(x)
        if _normalises_natively(x, norm, activation):
            y, mean, variance = batch_norm_relu(
                x, norm.weight, norm.bias, norm.eps
            )
            _update_running(norm, mean, variance, count=_count(x))
            return y
        x = norm(x)
    return x if activation is None else activation(x)


def _normalises_natively(
    x: Tensor, norm: nn.Module, activation: nn.Module | None
) -> bool:
    """Whether normalisation and activation are ``batch_norm_relu``."""
    return (
        type(activation) is nn.ReLU
        and _is_plain_batch_norm(norm)
        and (norm.training or norm.running_var is None)
        and norm.weight is not None
        and norm.weight.dtype == x.dtype
        and not _shares_statistics(norm)
        and not has_hooks(activation)
        # of a single number there are none: the normalisation says so
        and _count(x) > 1
        and serves_maps(x)
    )


def _is_plain_batch_norm(norm: nn.Module) -> bool:
    """Whether its parameters and statistics say all that a module does."""
    return (
        isinstance(norm, _BatchNorm)
        and type(norm).forward in _BATCH_NORM_FORWARDS
        and not has_hooks(norm)
    )


def _shares_statistics(norm: nn.Module) -> bool:
    """Whether they are those of several processes."""
    return isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1


def _count(x: Tensor) -> int:
    """Numbers per channel."""
    return x.numel() // max(x.shape[1], 1)


def fold_norm(
    x: Tensor, conv: nn.Module, norm: nn.Module
) -> tuple[Tensor, Tensor] | None:
    """Weights with which a convolution normalises what it gives.

    A batch normalisation with known statistics is an affine map of each
    channel. They are known outside of training; in training, on the CPU,
    those of a :class:`PointwiseConv2d` follow from the mean and covariance
    of its few inputs, and enter the running ones as ever. The weights are
    made on the fly, which costs next to nothing and is differentiable.

    Args:
        x: What is convolved, (B, C_in, H, W).
        conv: The convolution.
        norm: The normalisation.

    Returns:
        Weight and bias, or None where the modules have to run themselves:
        another normalisation, or hooks that wait for an output.
    """
    if not is_plain_conv(conv) or not _is_plain_batch_norm(norm):
        return None
    if not norm.training and norm.running_var is not None:
        mean, variance = norm.running_mean, norm.running_var
    elif _follows_from_inputs(x, conv, norm):
        mean, variance = _batch_statistics(x, conv)
        _update_running(norm, mean, variance, count=_count(x))
    else:
        return None
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -mean if conv.bias is None else conv.bias - mean
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    return conv.weight * scale.view(-1, 1, 1, 1), bias


def _follows_from_inputs(x: Tensor, conv: nn.Module, norm: nn.Module) -> bool:
    return (
        type(conv) is PointwiseConv2d
        and not _shares_statistics(norm)
        and x.device.type == 'cpu'
        and _count(x) > 1
    )


def _batch_statistics(x: Tensor, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Mean and variance (C_out) of ``conv(x)``, which is not computed."""
    groups = conv.groups
    # Not in half precision: a covariance is a small difference.
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(conv.weight.dtype)
        mean = x.mean(dim=(0, 2, 3))
        centred = (x - mean.view(1, -1, 1, 1)).flatten(2)
        # (B * groups, C_in / groups, H * W)
        centred = centred.unflatten(1, (groups, -1)).flatten(0, 1)
        products = torch.bmm(centred, centred.mT) / centred.shape[-1]
        covariance = products.unflatten(0, (-1, groups)).mean(dim=0)
        # (groups, C_out / groups, C_in / groups)
        weight = conv.weight.flatten(1).unflatten(0, (groups, -1))
        mean = (weight * mean.view(groups, 1, -1)).sum(dim=-1).flatten()
        variance = (torch.bmm(weight, covariance) * weight).sum(dim=-1)
    if conv.bias is not None:
        mean = mean + conv.bias
    return mean, variance.flatten().clamp_min(0)


@torch.no_grad()
def _update_running(
    norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int
) -> None:
    """As batch normalisations do that track them."""
    if not norm.training or norm.running_mean is None:
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum
    if share is None:
        share = 1 / norm.num_batches_tracked.item()
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / (count - 1)), share)


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
        activation = None
        if activate and self.with_activation:
            activation = self.activate
        return conv_norm(x, self.conv, self.norm, activation)


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
