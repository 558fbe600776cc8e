"""Backend ``mamba_ssm``: the CUDA kernel of the mamba-ssm package.

Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State
Spaces", arXiv:2312.00752; the kernel's extension module is called
``selective_scan_cuda``.
"""

import importlib
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from .layout import contiguous, unit_time_stride

# The kernel keeps one pair (decay product, state) per this many steps.
KERNEL_CHUNK_STEPS = 2048


@cache
def unavailable_reason() -> str | None:
    """None where the kernel can be loaded, else the remedy."""
    if not torch.cuda.is_available():
        return 'it needs a CUDA device, and torch sees none.'
    try:
        _kernel()
    except ImportError as error:
        return (
            f'{error}. Install it with '
            '"pip install mamba-ssm --no-build-isolation".'
        )
    return None


def states_shape(
    batch: int,
    dim: int,
    length: int,
    d_state: int,
    groups: int,
    device_type: str,
) -> tuple[int, ...]:
    """Shape of the states the kernel keeps for its backward.

    Args:
        batch: Batch size.
        dim: Number of channels D.
        length: Number of steps L.
        d_state: State size N.
        groups: Number of groups; has no influence.
        device_type: Type of the device; has no influence.

    Returns:
        (B, D, kernel chunks, 2 N).
    """
    return batch, dim, -(-length // KERNEL_CHUNK_STEPS), 2 * d_state


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
    """Run the kernel; arguments and results as in :mod:`.chunked`."""
    # Its results have the strides of u and delta; ours are contiguous.
    u, delta, D, delta_bias = map(contiguous, (u, delta, D, delta_bias))
    B, C = map(unit_time_stride, (B, C))
    y, states, *_ = _kernel().fwd(
        u, delta, A.contiguous(), B, C, D, None, delta_bias, delta_softplus
    )
    return y, states if save_states else u.new_empty(0)


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
    """Gradients; arguments and results as in :mod:`.chunked`."""
    dy, u, delta, D, delta_bias = map(
        contiguous, (dy, u, delta, D, delta_bias)
    )
    B, C = map(unit_time_stride, (B, C))
    du, ddelta, dA, dB, dC, dD, dbias, *_ = _kernel().bwd(
        u,
        delta,
        A.contiguous(),
        B,
        C,
        D,
        None,  # z: the gate is applied outside
        delta_bias,
        dy,
        states,
        None,  # out: needed with z only
        None,  # dz
        delta_softplus,
        False,  # recompute_out_z
    )
    return (
        du,
        ddelta,
        dA,
        dB.contiguous(),
        dC.contiguous(),
        None if D is None else dD,
        None if delta_bias is None else dbias,
    )


def _kernel() -> ModuleType:
    return importlib.import_module('selective_scan_cuda')
