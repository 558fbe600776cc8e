"""What selective scans are compared with, beside the plain loop.

``mamba_loop``
    The arrangement of mamba_ssm's reference, and of the many copies of it
    that run where its CUDA kernel does not: the decays and inputs of all
    steps are put into memory first by ``einsum``, B·D·L·N numbers each, and a
    loop over the steps reads them, with one more ``einsum`` per step. Our own
    loop (:func:`~mmseg_crackssm.ops.selective_scan.selective_scan_reference`)
    computes the decays of one step at a time, which spares that memory and
    much of the time: it is the harder one to beat.
``pscan``
    The parallel scan of the package mambapy, which torch alone runs, with the
    rest of S6 written out around it. Measured where it is installed.

Both compute what the operator does; neither is fit for anything but
comparison.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

MAMBA_LOOP = 'mamba_loop'
PSCAN = 'pscan'


def mamba_loop(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """The loop over steps that are all in memory before it starts.

    Args:
        u: (B, D, L), as the other arguments in the operator's contract.
        delta: Before bias and softplus, (B, D, L).
        A: (D, N).
        B: (B, G, N, L).
        C: (B, G, N, L).
        D: (D,).
        delta_bias: (D,).

    Returns:
        (B, D, L).
    """
    delta = F.softplus(delta + delta_bias[:, None])
    B, C = (_of_channels(x, u.shape[1]) for x in (B, C))
    decays = torch.exp(torch.einsum('bdl,dn->bdln', delta, A))
    inputs = torch.einsum('bdl,bdln,bdl->bdln', delta, B, u)
    state = torch.zeros_like(inputs[:, :, 0])
    outputs = []
    for step in range(u.shape[-1]):
        state = decays[:, :, step] * state + inputs[:, :, step]
        outputs.append(torch.einsum('bdn,bdn->bd', state, C[:, :, step]))
    return torch.stack(outputs, dim=-1) + D[:, None] * u


def pscan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """S6 around mambapy's parallel scan; arguments of :func:`mamba_loop`."""
    from mambapy.pscan import pscan as scan

    # Its layout is (B, L, D, N).
    delta = F.softplus(delta + delta_bias[:, None]).mT.contiguous()
    B, C = (
        _of_channels(x, u.shape[1]).transpose(1, 2).contiguous()
        for x in (B, C)
    )
    decays = torch.exp(delta[..., None] * A)
    states = scan(decays, (delta * u.mT)[..., None] * B)
    return (states * C).sum(-1).mT + D[:, None] * u


def _of_channels(weights: Tensor, channels: int) -> Tensor:
    """B or C (B, G, N, L) for each channel and step, (B, D, L, N)."""
    repeats = channels // weights.shape[1]
    return weights.repeat_interleave(repeats, dim=1).mT


BASELINES: dict[str, Callable[..., Tensor]] = {
    MAMBA_LOOP: mamba_loop,
    PSCAN: pscan,
}


def missing_baseline(name: str) -> str | None:
    """What a baseline lacks here, and the command that installs it."""
    if name != PSCAN or find_spec('mambapy'):
        return None
    return 'mambapy is not installed: pip install --no-deps mambapy'
