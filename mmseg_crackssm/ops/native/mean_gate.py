"""The mean of gates that are read from groups of channels, in one pass.

PyTorch multiplies, rectifies, multiplies, opens and averages in passes of
their own over maps with the hidden channels; the kernel holds those of a
pixel in registers.
"""

import struct
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.flop_counter import register_flop_formula

from ..registration import (
    Operator,
    differentiated,
    differentiated_once,
    register_operators,
)
from .arguments import PRECISIONS, check_companion
from .library import addresses, call

# mean_gate_call of csrc/calls.h: 12 pointers, then 6 sizes.
_CALL = struct.Struct('12P6q')
_INPUTS = (
    'Tensor x, Tensor weight, Tensor bias, Tensor out_weight, Tensor out_bias'
)


def mean_gate(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
) -> Tensor:
    """Open one gate per group of channels at each pixel, and average them.

    Equal to 1×1 convolutions with G groups::

        hidden = F.relu(F.conv2d(x, weight, bias, groups=G))
        gates = torch.sigmoid(F.conv2d(hidden, out_weight, out_bias, groups=G))
        gates.mean(dim=1, keepdim=True)

    which is what CrackSSM's wavelet gates are, after their normalisation.

    Args:
        x: Map (B, G * C, H, W), float32 or float64, on the CPU.
        weight: (G, K, C), of the K hidden channels of each group.
        bias: (G, K).
        out_weight: (G, K).
        out_bias: (G,).

    Returns:
        (B, 1, H, W), between 0 and 1.

    Raises:
        ValueError: A shape, type or device does not fit.
        RuntimeError: The C kernel is not available.
    """
    if weight.dim() != 3 or not weight.numel():
        raise ValueError(
            'weight: expected (groups, hidden, channels), none of them 0, '
            f'got {tuple(weight.shape)}.'
        )
    groups, hidden, channels = weight.shape
    if (
        x.dim() != 4
        or x.shape[1] != groups * channels
        or x.dtype not in PRECISIONS
    ):
        raise ValueError(
            f'x: expected (B, {groups * channels}, H, W) in float32 or '
            f'float64 to go with weight, got {x.dtype}, {tuple(x.shape)}.'
        )
    for name, tensor, shape in (
        ('weight', weight, weight.shape),
        ('bias', bias, (groups, hidden)),
        ('out_weight', out_weight, (groups, hidden)),
        ('out_bias', out_bias, (groups,)),
    ):
        check_companion(name, tensor, shape=shape, x=x, of='weight')
    return torch.ops.crackssm.mean_gate.default(
        x, weight, bias, out_weight, out_bias
    )


def _run(
    function: str,
    inputs: tuple[Tensor, ...],
    y: Tensor | None = None,
    dy: Tensor | None = None,
    gradients: tuple[Tensor | None, ...] = (None,) * 5,
) -> None:
    """Pack one ``mean_gate_call`` and run it.

    Args:
        function: Name in the library, for float.
        inputs: Those of :func:`mean_gate`.
        y: The result, in the forward.
        dy: Its gradient, in the backward.
        gradients: Those of the inputs; None for an ``x`` that needs none.
    """
    # The names keep the copies alive during the call.
    inputs = tuple(tensor.contiguous() for tensor in inputs)
    x, weight = inputs[:2]
    groups, hidden, channels = weight.shape
    packed = _CALL.pack(
        *addresses(*inputs, y, dy, *gradients),
        x.shape[0],
        groups,
        channels,
        hidden,
        x.shape[2] * x.shape[3],
        torch.get_num_threads(),
    )
    call(function, packed, x)


def _mean_gate(x: Tensor, *weights: Tensor) -> Tensor:
    y = _fake(x)
    if y.numel():
        _run('mean_gate', (x, *weights), y=y)
    return y


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    needs_dx: bool,
) -> tuple[Tensor, ...]:
    inputs = (x, weight, bias, out_weight, out_bias)
    dx, *others = _fake_backward(dy, *inputs, needs_dx)
    if x.numel():
        _run(
            'mean_gate_backward',
            inputs,
            dy=dy.contiguous(),
            gradients=(dx if needs_dx else None, *others),
        )
    else:
        for gradient in others:
            gradient.zero_()
    return dx, *others


def _fake(x: Tensor, *_: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], 1, *x.shape[2:])


def _fake_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    needs_dx: bool,
) -> tuple[Tensor, ...]:
    dx = x.new_empty(x.shape if needs_dx else 0)
    weights = (weight, bias, out_weight, out_bias)
    return dx, *(tensor.new_empty(tensor.shape) for tensor in weights)


class _MeanGateFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Any) -> Tensor:
        ctx.save_for_backward(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.crackssm.mean_gate.default(*inputs)

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        needs_dx = ctx.needs_input_grad[0]
        dx, *others = torch.ops.crackssm.mean_gate_backward.default(
            dy, *ctx.saved_tensors, needs_dx
        )
        return dx if needs_dx else None, *others


_LIBRARY = register_operators(
    {
        'mean_gate': Operator(
            schema=f'({_INPUTS}) -> Tensor',
            kernel=_mean_gate,
            fake=_fake,
            autograd=differentiated('mean_gate', _MeanGateFunction),
        ),
        'mean_gate_backward': Operator(
            schema=(
                f'(Tensor dy, {_INPUTS}, bool needs_dx) -> '
                '(Tensor, Tensor, Tensor, Tensor, Tensor)'
            ),
            kernel=_backward,
            fake=_fake_backward,
            autograd=differentiated_once(
                'mean_gate_backward',
                'mean_gate has no second derivative: create_graph=True needs '
                'F.conv2d, F.relu and torch.sigmoid.',
            ),
        ),
    }
)


@register_flop_formula(torch.ops.crackssm.mean_gate)
def _forward_formula(
    x: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object
) -> int:
    """Both products."""
    groups, hidden, channels = weight
    pixels = x[0] * x[2] * x[3]
    return 2 * pixels * groups * hidden * (channels + 1)


@register_flop_formula(torch.ops.crackssm.mean_gate_backward)
def _backward_formula(
    dy: tuple[int, ...],
    x: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...],
    out_weight: tuple[int, ...],
    out_bias: tuple[int, ...],
    needs_dx: bool,
    **_: object,
) -> int:
    """Gradients of the weights and of the hidden channels, perhaps of x."""
    groups, hidden, channels = weight
    pixels = x[0] * x[2] * x[3]
    per_hidden = channels + 2 + (channels if needs_dx else 0)
    return 2 * pixels * groups * hidden * per_hidden
