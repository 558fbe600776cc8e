"""S6 along several paths over one set of tokens, without reordered copies.

A part of the ``native`` backend. The C kernel reads each token where it lies,
makes its step size from the low-rank projection, and writes the result in its
place. What :func:`selective_scan` would have to be given as sequences (the
tokens, once per path; the step sizes; B and C in path order) never exists, in
the backward neither.

The operators are three, as in :mod:`.library`.
"""

import struct
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.flop_counter import register_flop_formula

from .. import native
from ..native.arguments import PRECISIONS, check_companion
from ..registration import (
    Operator,
    differentiated,
    differentiated_once,
    register_operators,
)
from .flops import selective_scan_backward_flops, selective_scan_flops
from .native import states_shape

# path_call of csrc/calls.h: 16 pointers, then 9 sizes and switches.
_CALL = struct.Struct('16P9q')
_INPUTS = (
    'Tensor tokens, Tensor projected, Tensor dt_weight, Tensor A, Tensor D, '
    'Tensor dt_bias, Tensor paths, bool merge'
)


def selective_scan_paths(
    tokens: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    paths: Tensor,
    merge: bool,
) -> Tensor:
    """Run S6 along K paths, each with parameters of its own.

    Path k visits ``tokens[paths[k, 0]]``, ``tokens[paths[k, 1]]``, ... With
    the rows of ``projected`` split into ``delta``, ``B`` and ``C``, and
    ``dt = softplus(dt_weight[k] delta + dt_bias[k])``, the recurrence is that
    of :func:`selective_scan` (VMamba, Section 4.2: cross scan, S6 and cross
    merge in one).

    Args:
        tokens: (B, L, d), float32 or float64, on the CPU.
        projected: (B, L, K, R + 2 N): for each token and path the R numbers
            that its step size is made of, then B, then C.
        dt_weight: (K, d, R).
        A: State matrices, (K * d, N).
        D: Skip weights, (K * d,).
        dt_bias: (K * d,).
        paths: Each a permutation of 0..L-1, int64, (K, L), or (B, K, L).
        merge: Whether the results of the paths are added up.

    Returns:
        Each result in the place of its token: (B, L, d) if merged, else
        (B, L, K, d).

    Raises:
        ValueError: A shape, type or device does not fit, or a path leaves
            the tokens.
        RuntimeError: The C kernel is not available.
    """
    inputs = (tokens, projected, dt_weight, A, D, dt_bias)
    _check(*inputs, paths)
    return torch.ops.crackssm.selective_scan_paths.default(
        *inputs, paths, merge
    )


def _check(
    tokens: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    paths: Tensor,
) -> None:
    if tokens.dim() != 3 or dt_weight.dim() != 3 or A.dim() != 2:
        raise ValueError(
            'expected tokens (B, L, d), dt_weight (K, d, R) and A (K * d, N), '
            f'got {tuple(tokens.shape)}, {tuple(dt_weight.shape)} and '
            f'{tuple(A.shape)}.'
        )
    batch, length, dim = tokens.shape
    n_paths, _, rank = dt_weight.shape
    d_state = A.shape[1]
    if min(length, dim, n_paths, d_state) == 0:
        raise ValueError('expected L, d, K and N of at least 1.')
    expected = dict(
        projected=(projected, (batch, length, n_paths, rank + 2 * d_state)),
        dt_weight=(dt_weight, (n_paths, dim, rank)),
        A=(A, (n_paths * dim, d_state)),
        D=(D, (n_paths * dim,)),
        dt_bias=(dt_bias, (n_paths * dim,)),
    )
    for name, (x, shape) in expected.items():
        check_companion(
            name, x, shape, tokens, of='the other tensors', like='tokens'
        )
    if tokens.dtype not in PRECISIONS:
        raise ValueError(
            f'tokens: expected float32 or float64, got {tokens.dtype}.'
        )
    if paths.dtype != torch.int64 or paths.shape not in (
        (n_paths, length),
        (batch, n_paths, length),
    ):
        raise ValueError(
            f'paths: expected int64, {(n_paths, length)} or '
            f'{(batch, n_paths, length)}, got {paths.dtype}, '
            f'{tuple(paths.shape)}.'
        )


def _y_shape(
    tokens: Tensor, dt_weight: Tensor, merge: bool
) -> tuple[int, ...]:
    batch, length, dim = tokens.shape
    if merge:
        return batch, length, dim
    return batch, length, dt_weight.shape[0], dim


def _states_shape(
    tokens: Tensor, dt_weight: Tensor, A: Tensor
) -> tuple[int, ...]:
    batch, length, dim = tokens.shape
    n_paths = dt_weight.shape[0]
    return states_shape(
        batch, n_paths * dim, length, A.shape[1], n_paths, tokens.device.type
    )


def _run(
    function: str,
    inputs: tuple[Tensor, ...],
    merge: bool,
    outputs: tuple[Tensor | None, ...],
) -> None:
    """Pack one ``path_call`` and run it.

    Args:
        function: Name in the library, for float.
        inputs: Tokens, projected, dt_weight, A, D, dt_bias and paths.
        merge: Whether y and dy are sums over paths.
        outputs: The other pointers of the call, in their order.
    """
    # The name keeps the copies alive during the call.
    inputs = tuple(x.contiguous() for x in inputs)
    tokens, _, dt_weight, A, *_, paths = inputs
    batch, length, dim = tokens.shape
    n_paths, _, rank = dt_weight.shape
    packed = _CALL.pack(
        *native.addresses(*inputs, *outputs),
        n_paths * length if paths.dim() == 3 else 0,
        batch,
        dim,
        length,
        A.shape[1],
        n_paths,
        rank,
        merge,
        torch.get_num_threads(),
    )
    try:
        native.call(function, packed, tokens)
    except native.BadCallError as error:
        raise ValueError(
            f'paths: expected indices of tokens, 0 to {length - 1}, got '
            f'{paths.min().item()} to {paths.max().item()}.'
        ) from error


def _scan(*args: Any) -> Tensor:
    *inputs, merge = args
    y = inputs[0].new_empty(_y_shape(inputs[0], inputs[2], merge))
    if y.numel():
        _run('scan_paths', tuple(inputs), merge, (y, *(None,) * 8))
    return y


def _scan_save_states(*args: Any) -> tuple[Tensor, Tensor]:
    *inputs, merge = args
    tokens, _, dt_weight, A = inputs[:4]
    y = tokens.new_empty(_y_shape(tokens, dt_weight, merge))
    states = tokens.new_empty(_states_shape(tokens, dt_weight, A))
    if y.numel():
        _run('scan_paths', tuple(inputs), merge, (y, states, *(None,) * 7))
    return y, states


def _scan_backward(
    dy: Tensor,
    tokens: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    paths: Tensor,
    merge: bool,
    states: Tensor,
) -> tuple[Tensor, ...]:
    inputs = (tokens, projected, dt_weight, A, D, dt_bias)
    if tokens.numel() == 0:
        return tuple(torch.zeros_like(x) for x in inputs)
    batch, length, dim = tokens.shape
    # One share per path, or per sequence: their sums have a fixed order.
    dtokens = tokens.new_empty(batch, length, dt_weight.shape[0], dim)
    dprojected = torch.empty_like(
        projected, memory_format=torch.contiguous_format
    )
    shares = [x.new_empty(batch, *x.shape) for x in (dt_weight, A, D, dt_bias)]
    dy = dy.contiguous()
    _run(
        'scan_paths_backward',
        (*inputs, paths),
        merge,
        (None, states, dy, dtokens, dprojected, *shares),
    )
    return dtokens.sum(2), dprojected, *(x.sum(0) for x in shares)


def _fake_scan(*args: Any) -> Tensor:
    *inputs, merge = args
    return inputs[0].new_empty(_y_shape(inputs[0], inputs[2], merge))


def _fake_scan_save_states(*args: Any) -> tuple[Tensor, Tensor]:
    tokens, _, dt_weight, A = args[:4]
    shape = _states_shape(tokens, dt_weight, A)
    return _fake_scan(*args), tokens.new_empty(shape)


def _fake_scan_backward(dy: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in args[:6])


class _PathsFunction(torch.autograd.Function):
    """Ties the operator that saves states to the one that uses them."""

    @staticmethod
    def forward(ctx: FunctionCtx, *args: Any) -> Tensor:
        *inputs, ctx.merge = args
        ops = torch.ops.crackssm
        with torch._C._AutoDispatchBelowAutograd():
            y, states = ops.selective_scan_paths_save_states.default(*args)
        ctx.save_for_backward(*inputs, states)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, states = ctx.saved_tensors
        grads = torch.ops.crackssm.selective_scan_paths_backward.default(
            dy, *inputs, ctx.merge, states
        )
        return *grads, None, None


_LIBRARY = register_operators(
    {
        'selective_scan_paths': Operator(
            schema=f'({_INPUTS}) -> Tensor',
            kernel=_scan,
            fake=_fake_scan,
            autograd=differentiated('selective_scan_paths', _PathsFunction),
        ),
        'selective_scan_paths_save_states': Operator(
            schema=f'({_INPUTS}) -> (Tensor, Tensor)',
            kernel=_scan_save_states,
            fake=_fake_scan_save_states,
        ),
        'selective_scan_paths_backward': Operator(
            schema=(
                f'(Tensor dy, {_INPUTS}, Tensor states) -> '
                '(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)'
            ),
            kernel=_scan_backward,
            fake=_fake_scan_backward,
            autograd=differentiated_once(
                'selective_scan_paths_backward',
                'selective_scan_paths has no second derivative: '
                'create_graph=True needs '
                "selective_scan(..., backend='reference') on sequences.",
            ),
        ),
    }
)


@register_flop_formula(
    [
        torch.ops.crackssm.selective_scan_paths,
        torch.ops.crackssm.selective_scan_paths_save_states,
    ]
)
def _forward_formula(
    tokens: tuple[int, ...],
    projected: tuple[int, ...],
    dt_weight: tuple[int, ...],
    A: tuple[int, ...],
    *_: object,
    **__: object,
) -> int:
    """The scans, and the products that make the step sizes."""
    batch, length, dim = tokens
    n_paths, _, rank = dt_weight
    scans = selective_scan_flops(batch, n_paths * dim, length, d_state=A[1])
    return scans + 2 * batch * length * n_paths * dim * rank


@register_flop_formula(torch.ops.crackssm.selective_scan_paths_backward)
def _backward_formula(
    dy: tuple[int, ...],
    tokens: tuple[int, ...],
    projected: tuple[int, ...],
    dt_weight: tuple[int, ...],
    A: tuple[int, ...],
    *_: object,
    **__: object,
) -> int:
    batch, length, dim = tokens
    n_paths, _, rank = dt_weight
    scans = selective_scan_backward_flops(
        batch, n_paths * dim, length, d_state=A[1]
    )
    return scans + 4 * batch * length * n_paths * dim * rank
