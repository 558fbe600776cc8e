"""The ``native`` backend: the C kernel of :mod:`mmseg_crackssm.ops.native`."""

import struct

import torch
from torch import Tensor

from .. import native
from ..native import unavailable_reason
from .layout import contiguous, unit_time_stride

__all__ = ['backward', 'forward', 'states_shape', 'unavailable_reason']

# scan_call of csrc/calls.h: 17 pointers, then 20 sizes and strides.
_CALL = struct.Struct('17P20q')


def states_shape(
    batch: int,
    dim: int,
    length: int,
    d_state: int,
    groups: int,
    device_type: str,
) -> tuple[int, ...]:
    """Shape of the states that the backward starts from.

    Their order in memory is the kernel's own. Plain arithmetic, for symbolic
    sizes as well.

    Args:
        batch: Number of sequences.
        dim: Channels.
        length: Steps.
        d_state: States per channel.
        groups: Groups of channels.
        device_type: Type of the device.
    """
    return (
        batch,
        dim,
        (length + native.SAVED_EVERY - 1) // native.SAVED_EVERY,
        d_state,
    )


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """Output of the scan, and the states at the borders of segments.

    All tensors are on the CPU, all float32 or all float64 (a slow path, for
    checks of the gradient). Rows may have any stride; where time has one
    other than 1, a copy is made.

    Args:
        u: Input, (B, D, L).
        delta: Step sizes, (B, D, L).
        A: State matrix, (D, N).
        B: Input weights, (B, G, N, L).
        C: Output weights, (B, G, N, L).
        D: Skip weights, (D,).
        delta_bias: Added to ``delta``, (D,).
        delta_softplus: Whether the steps pass a softplus.
        save_states: Whether a backward follows.

    Returns:
        Output (B, D, L), and states of :func:`states_shape`, or an empty
        tensor if they are not saved.
    """
    batch, dim, length = u.shape
    groups, d_state = B.shape[1:3]
    y = u.new_empty(u.shape)
    shape = (
        states_shape(batch, dim, length, d_state, groups, u.device.type)
        if save_states
        else (0,)
    )
    states = u.new_empty(shape)
    _run(
        'scan',
        inputs=(u, delta, A, B, C, D, delta_bias),
        delta_softplus=delta_softplus,
        states=states if save_states else None,
        dy=None,
        outputs=(y, *(None,) * 7),
    )
    return y, states


def backward(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    states: Tensor,
) -> tuple[Tensor | None, ...]:
    """Gradients of the scan.

    Args:
        dy: Gradient of the output, (B, D, L).
        u: As in :func:`forward`, like the arguments up to the last.
        delta: See there.
        A: See there.
        B: See there.
        C: See there.
        D: See there.
        delta_bias: See there.
        delta_softplus: See there.
        states: What the forward saved.

    Returns:
        Gradients of u, delta, A, B, C, D and delta_bias in their shapes; None
        for an absent D or delta_bias.
    """
    batch, dim, _ = u.shape
    du, ddelta = u.new_empty(u.shape), u.new_empty(u.shape)
    dA = u.new_empty((batch, *A.shape))
    dB, dC = u.new_empty(B.shape), u.new_empty(B.shape)
    dD, dbias = (
        None if x is None else u.new_empty((batch, dim))
        for x in (D, delta_bias)
    )
    _run(
        'scan_backward',
        inputs=(u, delta, A, B, C, D, delta_bias),
        delta_softplus=delta_softplus,
        states=states,
        dy=dy,
        outputs=(None, du, ddelta, dA, dB, dC, dD, dbias),
    )
    dA, dD, dbias = (_sum_batch(x) for x in (dA, dD, dbias))
    return du, ddelta, dA, dB, dC, dD, dbias


def _sum_batch(x: Tensor | None) -> Tensor | None:
    """Sum over sequences; the only one needs no operation."""
    if x is None:
        return None
    return x[0] if x.shape[0] == 1 else x.sum(0)


def _run(
    function: str,
    inputs: tuple[Tensor | None, ...],
    delta_softplus: bool,
    states: Tensor | None,
    dy: Tensor | None,
    outputs: tuple[Tensor | None, ...],
) -> None:
    """Pack one ``scan_call`` and run it."""
    u, delta, A, B, C, D, delta_bias = inputs
    # The names keep the copies alive during the call.
    u, delta, B, C = (unit_time_stride(x) for x in (u, delta, B, C))
    A = A.contiguous()
    D, delta_bias = contiguous(D), contiguous(delta_bias)
    dy_strides = (0, 0)
    if dy is not None:
        dy = unit_time_stride(dy)
        dy_strides = dy.stride()[:2]
    y, *gradients = outputs
    batch, dim, length = u.shape
    groups, d_state = B.shape[1:3]
    packed = _CALL.pack(
        *native.addresses(
            u, delta, A, B, C, D, delta_bias, states, y, dy, *gradients
        ),
        *u.stride()[:2],
        *delta.stride()[:2],
        d_state,
        *B.stride()[:3],
        *C.stride()[:3],
        *dy_strides,
        batch,
        dim,
        length,
        d_state,
        groups,
        delta_softplus,
        torch.get_num_threads(),
    )
    native.call(function, packed, u)
