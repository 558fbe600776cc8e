"""S6 along several paths over one set of tokens, without reordered copies.

A part of the ``native`` backend, for inference: the C kernel reads each token
where it lies, makes its step size from the low-rank projection, and writes the
result in its place. What :func:`selective_scan` would have to be given as
sequences (the tokens, once per path; the step sizes; B and C in path order)
never exists.
"""

import struct

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import native
from .flops import selective_scan_flops

# path_call of csrc/scan.h: 8 pointers, then 9 sizes and switches.
_CALL = struct.Struct('8P9q')
_SCHEMA = (
    'selective_scan_paths(Tensor tokens, Tensor projected, Tensor dt_weight, '
    'Tensor A, Tensor D, Tensor dt_bias, Tensor paths, bool merge) -> Tensor'
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
        RuntimeError: The C kernel is not available, or an input needs a
            gradient.
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
        if x.shape != shape:
            raise ValueError(
                f'{name}: expected {shape} to go with the other tensors, got '
                f'{tuple(x.shape)}.'
            )
        if x.dtype != tokens.dtype or x.device != tokens.device:
            raise ValueError(
                f'{name}: expected {tokens.dtype} on {tokens.device} like '
                f'tokens, got {x.dtype} on {x.device}.'
            )
    if tokens.dtype not in (torch.float32, torch.float64):
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


def _shape(tokens: Tensor, dt_weight: Tensor, merge: bool) -> tuple[int, ...]:
    batch, length, dim = tokens.shape
    if merge:
        return batch, length, dim
    return batch, length, dt_weight.shape[0], dim


def _scan(
    tokens: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    paths: Tensor,
    merge: bool,
) -> Tensor:
    y = tokens.new_empty(_shape(tokens, dt_weight, merge))
    if tokens.shape[0] == 0:
        return y
    # The names keep the copies alive during the call.
    tensors = [
        x.contiguous()
        for x in (tokens, projected, dt_weight, A, D, dt_bias, paths)
    ]
    batch, length, dim = tokens.shape
    n_paths, _, rank = dt_weight.shape
    call = _CALL.pack(
        *(x.data_ptr() for x in (*tensors, y)),
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
    double = tokens.dtype == torch.float64
    status = native.call('scan_paths_double' if double else 'scan_paths', call)
    if status == native.BAD_CALL:
        raise ValueError(
            f'paths: expected indices of tokens, 0 to {length - 1}, got '
            f'{paths.min().item()} to {paths.max().item()}.'
        )
    return y


def _fake_scan(
    tokens: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    paths: Tensor,
    merge: bool,
) -> Tensor:
    return tokens.new_empty(_shape(tokens, dt_weight, merge))


def _autograd_scan(*args: Tensor | bool) -> Tensor:
    """Kernel of the autograd key: there is no backward."""
    if torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in args
    ):
        raise RuntimeError(
            'selective_scan_paths has no gradient: call it under '
            'torch.no_grad(), or selective_scan on sequences.'
        )
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.crackssm.selective_scan_paths.default(*args)


def _register() -> torch.library.Library:
    """Define the operator; the library object must outlive the module."""
    library = torch.library.Library('crackssm', 'FRAGMENT')
    library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))
    library.impl('selective_scan_paths', _scan, 'CPU')
    library.impl('selective_scan_paths', _autograd_scan, 'Autograd')
    torch.library.register_fake(
        'crackssm::selective_scan_paths', _fake_scan, lib=library
    )
    return library


_LIBRARY = _register()


@register_flop_formula(torch.ops.crackssm.selective_scan_paths)
def _formula(
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
