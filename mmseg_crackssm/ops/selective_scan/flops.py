"""Floating-point operations of the selective scan.

Forward: ``9 N`` per channel and step, the count that the Mamba and VMamba
authors use (github.com/state-spaces/mamba, issue 110), so that figures here
compare with theirs, plus one for the skip ``D u`` as in VMamba's script; bias
and softplus are not counted.

Backward: there is no such convention, so the operations of the recurrence as
written in :mod:`.chunked` are counted, per channel, step and state element: 5
to recompute a state (dt A, exp, input, decay, sum), 3 for the gradient r of a
state (decay; product with C, sum), 2 each for dB, dC, <r, B> and the product
with A that goes into ddelta, 1 for r h, 2 for dA: 19 in all, and 4 per channel
and step for the skip's two gradients.
"""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

from . import library  # noqa: F401  (defines the operators)


def selective_scan_flops(
    batch: int, dim: int, length: int, d_state: int, has_skip: bool = True
) -> int:
    """Operations of the forward scan.

    Args:
        batch: Batch size.
        dim: Number of channels D.
        length: Number of steps L.
        d_state: State size N.
        has_skip: Whether there is a ``D``.
    """
    return batch * dim * length * (9 * d_state + int(has_skip))


def selective_scan_backward_flops(
    batch: int, dim: int, length: int, d_state: int, has_skip: bool = True
) -> int:
    """Operations of the backward scan; arguments as in the forward."""
    return batch * dim * length * (19 * d_state + 4 * int(has_skip))


@register_flop_formula(
    [
        torch.ops.crackssm.selective_scan,
        torch.ops.crackssm.selective_scan_save_states,
    ]
)
def _forward_formula(
    u: Sequence[int],
    delta: Sequence[int],
    A: Sequence[int],
    B: Sequence[int],
    C: Sequence[int],
    D: Sequence[int] | None,
    *_: object,
    **__: object,
) -> int:
    return selective_scan_flops(*u, d_state=A[1], has_skip=D is not None)


@register_flop_formula(torch.ops.crackssm.selective_scan_backward)
def _backward_formula(
    dy: Sequence[int],
    u: Sequence[int],
    delta: Sequence[int],
    A: Sequence[int],
    B: Sequence[int],
    C: Sequence[int],
    D: Sequence[int] | None,
    *_: object,
    **__: object,
) -> int:
    return selective_scan_backward_flops(
        *u, d_state=A[1], has_skip=D is not None
    )
