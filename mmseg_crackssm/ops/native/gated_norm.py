"""LayerNorm and gate behind a scan, in one pass over the tokens.

Where PyTorch normalises, gates and multiplies in three passes, with a map in
memory after each, the C kernel reads both operands once and writes the
result; its backward computes again what it needs of the forward.
"""

import struct
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..registration import (
    Operator,
    differentiated,
    differentiated_once,
    register_operators,
)
from .arguments import PRECISIONS, check_companion
from .library import GATE_ROWS, addresses, call

# gate_call of csrc/calls.h: 9 pointers, 6 sizes and strides, eps.
_CALL = struct.Struct('9P6qd')
_INPUTS = 'Tensor x, Tensor z, Tensor weight, Tensor bias, float eps'


def gated_norm(
    x: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> Tensor:
    """``F.layer_norm(x, (C,), weight, bias, eps) * F.silu(z)``.

    What stands between the scan and the last projection of a block with a
    gate (VMamba, Figure 3).

    Args:
        x: (..., C), float32 or float64, on the CPU.
        z: Like ``x``.
        weight: (C,).
        bias: (C,).
        eps: Added to the variance.

    Returns:
        (..., C), contiguous.

    Raises:
        ValueError: A shape, type or device does not fit.
        RuntimeError: The C kernel is not available.
    """
    if x.dim() == 0 or x.dtype not in PRECISIONS:
        raise ValueError(
            f'x: expected (..., C) in float32 or float64, got {x.dtype}, '
            f'{tuple(x.shape)}.'
        )
    for name, tensor, shape in (
        ('z', z, x.shape),
        ('weight', weight, x.shape[-1:]),
        ('bias', bias, x.shape[-1:]),
    ):
        check_companion(name, tensor, shape=shape, x=x)
    return torch.ops.crackssm.gated_norm.default(x, z, weight, bias, eps)


def _rows(x: Tensor) -> Tensor:
    """(..., C) as rows of neighbours, without a copy where that can be."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    return x.reshape(-1, x.shape[-1])


def _run(
    function: str,
    inputs: tuple[Tensor, ...],
    eps: float,
    y: Tensor | None = None,
    dy: Tensor | None = None,
    gradients: tuple[Tensor | None, ...] = (None, None, None),
) -> None:
    """Pack one ``gate_call`` and run it.

    Args:
        function: Name in the library, for float.
        inputs: x, z, weight and bias.
        eps: See :func:`gated_norm`.
        y: The result, in the forward.
        dy: Its gradient, in the backward.
        gradients: dx, dz and the partial sums of dweight and dbias.
    """
    # The names keep the copies alive during the call.
    x, z = (_rows(tensor) for tensor in inputs[:2])
    weight, bias = (tensor.contiguous() for tensor in inputs[2:])
    dy = None if dy is None else _rows(dy)
    packed = _CALL.pack(
        *addresses(x, z, weight, bias, y, dy, *gradients),
        x.stride(0),
        z.stride(0),
        0 if dy is None else dy.stride(0),
        *x.shape,
        torch.get_num_threads(),
        eps,
    )
    call(function, packed, x)


def _gated_norm(
    x: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    y = x.new_empty(x.shape)
    if y.numel():
        _run('gated_norm', (x, z, weight, bias), eps, y=y)
    return y


def _gated_norm_backward(
    dy: Tensor, x: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, ...]:
    dx, dz = x.new_empty(x.shape), x.new_empty(x.shape)
    if not x.numel():
        return dx, dz, torch.zeros_like(weight), torch.zeros_like(bias)
    # One share per task: their sum has a fixed order.
    channels = x.shape[-1]
    n_tasks = -(-(x.numel() // channels) // GATE_ROWS)
    shares = x.new_empty(n_tasks, 2, channels)
    _run(
        'gated_norm_backward',
        (x, z, weight, bias),
        eps,
        dy=dy,
        gradients=(dx, dz, shares),
    )
    return dx, dz, *shares.sum(0)


def _fake_gated_norm(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


def _fake_gated_norm_backward(
    dy: Tensor,
    x: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, z, weight, bias))


class _GatedNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *args: Any) -> Tensor:
        *inputs, ctx.eps = args
        ctx.save_for_backward(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.crackssm.gated_norm.default(*args)

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        return *torch.ops.crackssm.gated_norm_backward.default(
            dy, *ctx.saved_tensors, ctx.eps
        ), None


_LIBRARY = register_operators(
    {
        'gated_norm': Operator(
            schema=f'({_INPUTS}) -> Tensor',
            kernel=_gated_norm,
            fake=_fake_gated_norm,
            autograd=differentiated('gated_norm', _GatedNormFunction),
        ),
        'gated_norm_backward': Operator(
            schema=(
                f'(Tensor dy, {_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor)'
            ),
            kernel=_gated_norm_backward,
            fake=_fake_gated_norm_backward,
            autograd=differentiated_once(
                'gated_norm_backward',
                'gated_norm has no second derivative: create_graph=True needs '
                'F.layer_norm and F.silu.',
            ),
        ),
    }
)
