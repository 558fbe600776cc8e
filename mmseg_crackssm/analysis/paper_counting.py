"""Multiply-accumulates as the papers' counter has them.

He and Wang (CrackMamba, Section 4.3.2) count with ptflops. It adds up what
forward hooks see of some kinds of modules, by rules of its own, and knows
nothing of what functions do: the selective scan, its projections, products
of attention and Mamba's fused layer are all free. These rules, as of
ptflops 0.6.9, give the printed figures to the last digit;
:func:`~.flops.count_flops` is the honest count.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.config import Config
from torch import Tensor

from ..models.layers import BidirectionalMamba
from ..models.necks.crackseu_fusion import ChannelAttention, UpsampleConv
from .flops import build_model, count_channels, count_flops, evaluating, infer

Rule = Callable[[nn.Module, Tensor, Tensor], int]


def _conv(module: nn.Module, x: Tensor, y: Tensor) -> int:
    positions = y.shape[0] * prod(y.shape[2:])
    weights = prod(module.kernel_size) * module.in_channels
    count = weights * module.out_channels // module.groups
    return positions * (count + _biases(module))


def _linear(module: nn.Linear, x: Tensor, y: Tensor) -> int:
    # The bias once, whatever the number of positions.
    return y.numel() * module.in_features + _biases(module)


def _biases(module: nn.Module) -> int:
    return 0 if module.bias is None else module.bias.numel()


def _batch_norm(module: nn.Module, x: Tensor, y: Tensor) -> int:
    return x.numel() * (2 if module.affine else 1)


def _input(module: nn.Module, x: Tensor, y: Tensor) -> int:
    return x.numel()


def _output(module: nn.Module, x: Tensor, y: Tensor) -> int:
    return y.numel()


def _gelu(module: nn.GELU, x: Tensor, y: Tensor) -> int:
    # The tanh form is CrackSeU's, whose code has a class of its own for it.
    return y.numel() if module.approximate == 'none' else 0


def _channel_attention(module: ChannelAttention, x: Tensor, y: Tensor) -> int:
    # The released code computes the branch of the average a second time.
    hidden = module.fc1.out_channels
    return x.numel() + 2 * hidden * y.numel()


RULES: dict[type[nn.Module], Rule] = {
    nn.modules.conv._ConvNd: _conv,
    nn.Linear: _linear,
    nn.modules.batchnorm._BatchNorm: _batch_norm,
    nn.ReLU: _output,
    nn.ReLU6: _output,
    nn.PReLU: _output,
    nn.ELU: _output,
    nn.LeakyReLU: _output,
    nn.GELU: _gelu,
    nn.MaxPool2d: _input,
    nn.AvgPool2d: _input,
    nn.AdaptiveAvgPool2d: _input,
    nn.AdaptiveMaxPool2d: _input,
    nn.Upsample: _output,
    UpsampleConv: _output,
    ChannelAttention: _channel_attention,
}
"""What a call of each kind of module counts, besides its children."""

UNSEEN = (BidirectionalMamba,)
"""Modules whose published code calls functions alone."""


def count_macs_as_papers(
    model: nn.Module, shape: tuple[int, int], in_channels: int = 3
) -> int:
    """Count a segmentor's inference on one image by the papers' rules.

    Args:
        model: The segmentor, on the CPU; its mode is restored.
        shape: Height and width of the image.
        in_channels: Channels of the image.

    Returns:
        Multiply-accumulates, without the auxiliary heads'.
    """
    total = 0

    def book(rule: Rule) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            nonlocal total
            total += rule(module, args[0], output)

        return hook

    handles = [
        module.register_forward_hook(book(rule))
        for module in _seen(model)
        for kind, rule in RULES.items()
        if isinstance(module, kind)
    ]
    try:
        with evaluating(model):
            infer(model, torch.rand(1, in_channels, *shape))
    finally:
        for handle in handles:
            handle.remove()
    return total


def _seen(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, UNSEEN):
        return []
    below = [x for child in module.children() for x in _seen(child)]
    return [module, *below]


def measure_config_as_papers(
    cfg: Config | str | Path, shape: tuple[int, int]
) -> dict:
    """Build a config's model and count it both ways.

    Args:
        cfg: Config, or the path of one.
        shape: Height and width of the image.

    Returns:
        As :func:`~.flops.measure_config`, with its ``macs`` under
        ``operator_macs`` and the papers' under ``macs``.

    Raises:
        ValueError: If the config has no ``model``.
    """
    model = build_model(cfg)
    in_channels = count_channels(model)
    report = count_flops(model, shape=shape, in_channels=in_channels)
    report['operator_macs'] = report['macs']
    report['macs'] = count_macs_as_papers(
        model, shape=shape, in_channels=in_channels
    )
    return report
