"""From the continuous state space to the recurrence (CrackMamba, App. A).

``h'(t) = A h(t) + B x(t)`` becomes ``h_k = A_bar h_{k-1} + B_bar x_k``. What
the methods differ in, and their error at a fixed time for steps of length Δ:

========== ========================= ==================== ============ =======
method     A_bar                     B_bar                x constant   x varies
========== ========================= ==================== ============ =======
euler      I + ΔA                    ΔB                   O(Δ)         O(Δ)
bilinear   (I - ΔA/2)⁻¹ (I + ΔA/2)   (I - ΔA/2)⁻¹ ΔB      O(Δ²)        O(Δ)
zoh        exp(ΔA)                   A⁻¹ (exp(ΔA) - I) B  exact        O(Δ)
practical  exp(ΔA)                   ΔB                   O(Δ)         O(Δ)
========== ========================= ==================== ============ =======

Mamba's code takes the last: ``ΔB`` is the first term of the series of ZOH's.
All hold x over a step, so that none is better than first order for an x that
varies.
"""

import torch
from torch import Tensor

METHODS = ('euler', 'bilinear', 'zoh', 'practical')


def discretize(
    A: Tensor, B: Tensor, step: float, method: str = 'practical'
) -> tuple[Tensor, Tensor]:
    """Discretise a linear time-invariant system.

    Args:
        A: State matrix (N, N).
        B: Input matrix (N, M).
        step: Step length Δ.
        method: One of :data:`METHODS` (eq. A8; A20; A39; C2).

    Returns:
        ``A_bar`` (N, N) and ``B_bar`` (N, M). ZOH needs no inverse of A:
        both are blocks of one matrix exponential.

    Raises:
        ValueError: On an unknown method.
    """
    _check_method(method)
    identity = torch.eye(A.shape[0], dtype=A.dtype, device=A.device)
    if method == 'euler':
        return identity + step * A, step * B
    if method == 'bilinear':
        left = identity - step / 2 * A
        return (
            torch.linalg.solve(left, identity + step / 2 * A),
            torch.linalg.solve(left, step * B),
        )
    if method == 'practical':
        return torch.matrix_exp(step * A), step * B
    states, inputs = B.shape
    both = A.new_zeros(states + inputs, states + inputs)
    both[:states, :states], both[:states, states:] = A, B
    exponential = torch.matrix_exp(step * both)
    return exponential[:states, :states], exponential[:states, states:]


def discretize_diagonal(
    step: Tensor, A: Tensor, method: str = 'practical'
) -> tuple[Tensor, Tensor]:
    """The same for a diagonal A, as selective scans have it.

    Args:
        step: Steps Δ, of any shape that broadcasts with ``A``.
        A: Diagonal, negative.
        method: One of :data:`METHODS`.

    Returns:
        The diagonal of ``A_bar``, and the factor of B in ``B_bar``.

    Raises:
        ValueError: On an unknown method.
    """
    _check_method(method)
    product = step * A
    if method == 'euler':
        return 1 + product, step.expand_as(product)
    if method == 'bilinear':
        return (1 + product / 2) / (1 - product / 2), step / (1 - product / 2)
    if method == 'practical':
        return torch.exp(product), step.expand_as(product)
    return torch.exp(product), torch.expm1(product) / A


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(
            f'discretization: expected one of {METHODS}, got {method!r}'
        )
