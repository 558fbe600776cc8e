"""Batch normalisation in training and ReLU, in two passes over the map.

PyTorch goes over it six times, and eight times in the backward.
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
from .arguments import PRECISIONS, channels_last, check_companion
from .library import addresses, call

# batch_norm_call of csrc/calls.h: 10 pointers, 3 sizes, eps.
_CALL = struct.Struct('10P3qd')
_INPUTS = 'Tensor x, Tensor weight, Tensor bias'


def batch_norm_relu(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """``F.relu(F.batch_norm(x, None, None, weight, bias, True, eps=eps))``.

    Args:
        x: Map (B, C, H, W), float32 or float64, on the CPU.
        weight: (C,).
        bias: (C,).
        eps: Added to the variance.

    Returns:
        The result (B, C, H, W), in channels-last memory (a map in other
        memory is copied first), and the statistics of each channel for
        running ones: mean (C,) and variance (C,), the biased one. No gradient
        passes the statistics.

    Raises:
        ValueError: A shape, type or device does not fit, or a channel has
            fewer than two numbers.
        RuntimeError: The C kernel is not available.
    """
    if x.dim() != 4 or x.dtype not in PRECISIONS:
        raise ValueError(
            'x: expected (B, C, H, W) in float32 or float64, got '
            f'{x.dtype}, {tuple(x.shape)}.'
        )
    if x.shape[1] == 0 or x.numel() <= x.shape[1]:
        raise ValueError(
            'x: expected two or more numbers per channel, which have a '
            f'variance, got {tuple(x.shape)}.'
        )
    for name, tensor in (('weight', weight), ('bias', bias)):
        check_companion(name, tensor, shape=x.shape[1:2], x=x)
    return torch.ops.crackssm.batch_norm_relu.default(x, weight, bias, eps)


def _run(
    function: str, tensors: tuple[Tensor | None, ...], eps: float
) -> None:
    """Pack one ``batch_norm_call`` and run it.

    Args:
        function: Name in the library, for float.
        tensors: x, weight, bias, mean, variance, y, dy, dx, dweight and
            dbias; None for those of the other direction.
        eps: See :func:`batch_norm_relu`.
    """
    x = tensors[0]
    packed = _CALL.pack(
        *addresses(*tensors),
        x.numel() // x.shape[1],
        x.shape[1],
        torch.get_num_threads(),
        eps,
    )
    call(function, packed, x)


def _batch_norm_relu(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, variance = _fake(x, weight, bias, eps)
    # The names keep the copies alive during the call.
    x, weight, bias = channels_last(x), weight.contiguous(), bias.contiguous()
    _run(
        'batch_norm_relu',
        (x, weight, bias, mean, variance, y, *(None,) * 4),
        eps,
    )
    return y, mean, variance


def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = _fake_backward(dy, x, weight, bias)
    x, dy = channels_last(x), channels_last(dy)
    weight, bias = weight.contiguous(), bias.contiguous()
    _run(
        'batch_norm_relu_backward',
        (x, weight, bias, mean, variance, None, dy, *gradients),
        eps,
    )
    return gradients


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=torch.channels_last)
    return y, weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _fake_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x, memory_format=torch.channels_last),
        weight.new_empty(weight.shape),
        bias.new_empty(bias.shape),
    )


class _BatchNormReLUFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *args: Any) -> tuple[Tensor, ...]:
        *inputs, ctx.eps = args
        with torch._C._AutoDispatchBelowAutograd():
            results = torch.ops.crackssm.batch_norm_relu.default(*args)
        y, *statistics = results
        ctx.save_for_backward(*inputs, *statistics)
        ctx.mark_non_differentiable(*statistics)
        return results

    @staticmethod
    def backward(
        ctx: FunctionCtx, dy: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        return *torch.ops.crackssm.batch_norm_relu_backward.default(
            dy, *ctx.saved_tensors, ctx.eps
        ), None


_LIBRARY = register_operators(
    {
        'batch_norm_relu': Operator(
            schema=f'({_INPUTS}, float eps) -> (Tensor, Tensor, Tensor)',
            kernel=_batch_norm_relu,
            fake=_fake,
            autograd=differentiated('batch_norm_relu', _BatchNormReLUFunction),
        ),
        'batch_norm_relu_backward': Operator(
            schema=(
                f'(Tensor dy, {_INPUTS}, Tensor mean, Tensor variance, float '
                'eps) -> (Tensor, Tensor, Tensor)'
            ),
            kernel=_backward,
            fake=_fake_backward,
            autograd=differentiated_once(
                'batch_norm_relu_backward',
                'batch_norm_relu has no second derivative: create_graph=True '
                'needs F.batch_norm and F.relu.',
            ),
        ),
    }
)
