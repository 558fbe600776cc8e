"""The selective scan written as its definition: the oracle of all backends."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..discretization import discretize_diagonal


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    discretization: str = 'practical',
) -> Tensor:
    """Run the recurrence step by step; torch differentiates it.

    With ``dt = softplus(delta + delta_bias)`` (both optional) and a zero
    initial state, each channel ``d`` of group ``g = d // (D / G)`` follows

    ``h_t = exp(dt_t A_d) h_{t-1} + dt_t u_t B_{g,t}``
    ``y_t = <h_t, C_{g,t}> + D_d u_t``

    (Gu and Dao, "Mamba", arXiv:2312.00752, eq. 2 with the discretisation of
    the released code). One Python iteration per step and every state kept for
    the backward pass: meant for tests, not for training.

    Args:
        u: Input sequence, (B, D, L).
        delta: Step sizes before bias and softplus, (B, D, L).
        A: State matrix, diagonal, real, (D, N).
        B: Input weights, (B, G, N, L).
        C: Output weights, (B, G, N, L).
        D: Skip weights, (D,).
        delta_bias: Added to ``delta`` before the softplus, (D,).
        delta_softplus: Whether the steps pass a softplus.
        discretization: One of
            :data:`~mmseg_crackssm.ops.discretization.METHODS`; the other
            backends have ``'practical'`` alone, as Mamba's code has.

    Returns:
        Output sequence, (B, D, L), in the precision of the inputs.
    """
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    repeats = u.shape[1] // B.shape[1]
    # unbind and stack rather than slices: the backward of a slice is as long
    # as the whole sequence, which would make the gradient quadratic in L.
    columns = zip(
        u.unbind(-1),
        delta.unbind(-1),
        B.repeat_interleave(repeats, dim=1).unbind(-1),
        C.repeat_interleave(repeats, dim=1).unbind(-1),
        strict=True,
    )
    state = u.new_zeros(*u.shape[:2], A.shape[1])
    outputs = []
    for u_t, delta_t, B_t, C_t in columns:
        decay, gain = discretize_diagonal(
            delta_t[..., None], A, discretization
        )
        state = decay * state + gain * u_t[..., None] * B_t
        outputs.append((state * C_t).sum(-1))
    y = torch.stack(outputs, dim=-1)
    return y if D is None else y + D[:, None] * u
