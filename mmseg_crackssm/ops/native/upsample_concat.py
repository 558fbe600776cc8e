"""What a decoder level reads, in one pass over its map.

Where PyTorch resizes one map, copies it beside another and multiplies both by
a gate, with a map in memory after each, the kernel writes the result at once;
its backward computes again what it needs of the forward.
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
    without_absent,
)
from .arguments import PRECISIONS, channels_last, check_companion
from .library import addresses, call

# merge_call of csrc/calls.h: 8 pointers, then 8 sizes.
_CALL = struct.Struct('8P8q')
_INPUTS = 'Tensor x, Tensor? skip, Tensor? gate, SymInt[] size'


def upsample_concat(
    x: Tensor,
    skip: Tensor | None,
    gate: Tensor | None,
    size: tuple[int, int],
) -> Tensor:
    """``torch.cat((resize(x), skip), dim=1) * (1 + gate)``.

    Resized as ``F.interpolate(x, size, mode='bilinear')`` does.

    Args:
        x: Coarser map (B, C, h, w), float32 or float64, on the CPU.
        skip: Finer map (B, C', H, W), or None: nothing stands beside ``x``.
        gate: (B, 1, H, W), or None: nothing is multiplied.
        size: (H, W).

    Returns:
        (B, C + C', H, W), in channels-last memory. Maps in other memory are
        copied first.

    Raises:
        ValueError: A shape, type or device does not fit.
        RuntimeError: The C kernel is not available.
    """
    if x.dim() != 4 or x.dtype not in PRECISIONS or not all(x.shape[1:]):
        raise ValueError(
            'x: expected (B, C, h, w) in float32 or float64, none of C, h '
            f'and w 0, got {x.dtype}, {tuple(x.shape)}.'
        )
    size = tuple(size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f'size: expected two positive sides, got {size}.')
    of = 'x and size'
    if skip is not None:
        shape = (x.shape[0], *skip.shape[1:2], *size)
        check_companion('skip', skip, shape=shape, x=x, of=of)
    if gate is not None:
        shape = (x.shape[0], 1, *size)
        check_companion('gate', gate, shape=shape, x=x, of=of)
    return torch.ops.crackssm.upsample_concat.default(x, skip, gate, size)


def _empty_like(x: Tensor | None) -> Tensor | None:
    if x is None:
        return None
    return torch.empty_like(x, memory_format=torch.channels_last)


def _run(
    function: str,
    inputs: tuple[Tensor | None, ...],
    size: tuple[int, int],
    outputs: tuple[Tensor | None, ...],
) -> None:
    """Pack one ``merge_call`` and run it.

    Args:
        function: Name in the library, for float.
        inputs: x, skip and gate.
        size: See :func:`upsample_concat`.
        outputs: y, dy, dx, dskip and dgate; None for those of the other
            direction.
    """
    # The names keep the copies alive during the call.
    x, skip, gate = (channels_last(tensor) for tensor in inputs)
    packed = _CALL.pack(
        *addresses(x, skip, gate, *outputs),
        x.shape[0],
        *x.shape[2:],
        *size,
        x.shape[1],
        0 if skip is None else skip.shape[1],
        torch.get_num_threads(),
    )
    call(function, packed, x)


def _upsample_concat(
    x: Tensor, skip: Tensor | None, gate: Tensor | None, size: list[int]
) -> Tensor:
    y = _fake(x, skip, gate, size)
    if y.numel():
        _run('upsample_concat', (x, skip, gate), size, (y, *(None,) * 4))
    return y


def _backward(
    dy: Tensor,
    x: Tensor,
    skip: Tensor | None,
    gate: Tensor | None,
    size: list[int],
) -> tuple[Tensor, ...]:
    gradients = tuple(_empty_like(tensor) for tensor in (x, skip, gate))
    if x.numel():
        _run(
            'upsample_concat_backward',
            (x, skip, gate),
            size,
            (None, channels_last(dy), *gradients),
        )
    return _as_tensors(x, gradients)


def _as_tensors(
    x: Tensor, gradients: tuple[Tensor | None, ...]
) -> tuple[Tensor, ...]:
    """Empty tensors for None, which operators do not return."""
    return tuple(x.new_empty(0) if t is None else t for t in gradients)


def _fake(
    x: Tensor, skip: Tensor | None, gate: Tensor | None, size: list[int]
) -> Tensor:
    channels = x.shape[1] + (0 if skip is None else skip.shape[1])
    return torch.empty(
        (x.shape[0], channels, *size),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _fake_backward(
    dy: Tensor,
    x: Tensor,
    skip: Tensor | None,
    gate: Tensor | None,
    size: list[int],
) -> tuple[Tensor, ...]:
    return _as_tensors(
        x, tuple(_empty_like(tensor) for tensor in (x, skip, gate))
    )


class _UpsampleConcatFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *args: Any) -> Tensor:
        *inputs, ctx.size = args
        ctx.save_for_backward(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.crackssm.upsample_concat.default(*args)

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        gradients = torch.ops.crackssm.upsample_concat_backward.default(
            dy, *inputs, ctx.size
        )
        return *without_absent(inputs, gradients), None


_LIBRARY = register_operators(
    {
        'upsample_concat': Operator(
            schema=f'({_INPUTS}) -> Tensor',
            kernel=_upsample_concat,
            fake=_fake,
            autograd=differentiated(
                'upsample_concat', _UpsampleConcatFunction
            ),
        ),
        'upsample_concat_backward': Operator(
            schema=f'(Tensor dy, {_INPUTS}) -> (Tensor, Tensor, Tensor)',
            kernel=_backward,
            fake=_fake_backward,
            autograd=differentiated_once(
                'upsample_concat_backward',
                'upsample_concat has no second derivative: create_graph=True '
                'needs F.interpolate and torch.cat.',
            ),
        ),
    }
)
