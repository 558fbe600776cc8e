"""The public function: checks its arguments and calls the operator."""

import torch
from torch import Tensor

from . import flops, library  # noqa: F401  (they register the operators)
from .backends import REFERENCE, requested_backend
from .reference import selective_scan_reference


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    backend: str = 'auto',
) -> Tensor:
    """Selective state-space scan (S6) along the last dimension.

    With ``dt = delta + delta_bias``, through a softplus if asked, and a zero
    initial state, each channel d of group g follows

    ``h_t = exp(dt_t A_d) h_{t-1} + dt_t u_t B_{g,t}``
    ``y_t = <h_t, C_{g,t}> + D_d u_t``

    (Gu and Dao, "Mamba", arXiv:2312.00752, Alg. 2; the contract is that of
    mamba-ssm's ``selective_scan_fn`` without the gate z). The computation is
    in float32, whatever autocast says, and in float64 for float64 inputs.

    Args:
        u: Input sequence, (B, D, L), in any floating-point type.
        delta: Step sizes before bias and softplus, (B, D, L).
        A: Diagonal state matrix, real, usually negative, (D, N).
        B: Input weights, (B, N, L), or (B, G, N, L) for D channels in G equal
            groups, channel d in group ``d // (D / G)``. B and C may differ in
            form; one group serves all channels.
        C: Output weights, like ``B``.
        D: Skip weights, (D,).
        delta_bias: Added to ``delta`` before the softplus, (D,).
        delta_softplus: Whether the steps pass a softplus.
        backend: 'auto' (on CUDA ``triton``, else ``mamba_ssm``, if installed;
            on CPU ``native`` if it was built; else ``torch``), or one of these
            names, or 'reference', the plain loop. The environment variable
            ``MMSEG_CRACKSSM_SCAN`` replaces 'auto'.

    Returns:
        Output sequence, (B, D, L), in the type of ``u``. An empty batch gives
        an empty output, and zero gradients of the parameters.

    Raises:
        ValueError: An argument has a wrong shape, type or device, or the
            backend does not exist or does not serve them.
        RuntimeError: The backend is not installed.
    """
    _check_inputs(u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    B, C = _as_groups(B, C)
    # While tracing, the operator itself looks at the environment.
    if not torch.compiler.is_compiling():
        backend = requested_backend(backend)
    if backend == REFERENCE:
        return _run_reference(u, delta, A, B, C, D, delta_bias, delta_softplus)
    return torch.ops.crackssm.selective_scan.default(
        u, delta, A, B, C, D, delta_bias, delta_softplus, backend
    )


def _run_reference(u: Tensor, *inputs: Tensor | bool | None) -> Tensor:
    """The loop in the operator's precision."""
    dtype = library.compute_dtype(u)
    u_cast, *inputs = (
        x.to(dtype) if isinstance(x, Tensor) else x for x in (u, *inputs)
    )
    with torch.autocast(device_type=u.device.type, enabled=False):
        return selective_scan_reference(u_cast, *inputs).to(u.dtype)


def _as_groups(B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Bring B and C to (B, G, N, L) with the same G."""
    B = B.unsqueeze(1) if B.dim() == 3 else B
    C = C.unsqueeze(1) if C.dim() == 3 else C
    groups = max(B.shape[1], C.shape[1])
    return _expand_groups(B, groups), _expand_groups(C, groups)


def _expand_groups(x: Tensor, groups: int) -> Tensor:
    if x.shape[1] == groups:
        return x
    # Cast first: the gradients of the copies are then summed in float32.
    return x.to(library.compute_dtype(x)).expand(-1, groups, -1, -1)


def _check_inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    """Raise on the first argument that breaks the contract."""
    given = dict(u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    for name, x in given.items():
        is_optional = name in ('D', 'delta_bias')
        if not isinstance(x, Tensor) and not (is_optional and x is None):
            raise ValueError(
                f'{name}: expected a tensor{" or None" if is_optional else ""}'
                f', got {type(x).__name__}.'
            )
    if u.dim() != 3:
        raise ValueError(f'u: expected (B, D, L), got {_form(u)}.')
    batch, dim, length = u.shape
    if dim == 0 or length == 0:
        raise ValueError(f'u: expected D and L of at least 1, got {_form(u)}.')
    if delta.shape != u.shape:
        raise ValueError(
            f'delta: expected the shape of u, {tuple(u.shape)}, got '
            f'{_form(delta)}.'
        )
    if A.dim() != 2 or A.shape[0] != dim or A.shape[1] == 0:
        raise ValueError(
            f'A: expected (D, N) with D = {dim} and N of at least 1, got '
            f'{_form(A)}.'
        )
    d_state = A.shape[1]
    for name, x in (('B', B), ('C', C)):
        _check_projection(name, x, batch, dim, d_state, length)
    if B.dim() == C.dim() == 4 and B.shape[1] != C.shape[1]:
        if B.shape[1] != 1 and C.shape[1] != 1:
            raise ValueError(
                f'C: expected the groups of B, {B.shape[1]}, or 1, got '
                f'{C.shape[1]}.'
            )
    for name, x in (('D', D), ('delta_bias', delta_bias)):
        if x is not None and x.shape != (dim,):
            raise ValueError(
                f'{name}: expected (D,) with D = {dim}, got {_form(x)}.'
            )
    double = u.dtype == torch.float64
    for name, x in given.items():
        if x is not None:
            _check_kind(name, x, u.device, double)


def _check_projection(
    name: str, x: Tensor, batch: int, dim: int, d_state: int, length: int
) -> None:
    """Raise unless B or C has one of its two forms."""
    is_flat = x.dim() == 3 and x.shape == (batch, d_state, length)
    is_grouped = (
        x.dim() == 4
        and x.shape[0] == batch
        and x.shape[2:] == (d_state, length)
    )
    if not is_flat and not is_grouped:
        raise ValueError(
            f'{name}: expected {(batch, d_state, length)} or '
            f'({batch}, G, {d_state}, {length}) to go with u and A, got '
            f'{_form(x)}.'
        )
    if is_grouped and (x.shape[1] == 0 or dim % x.shape[1] != 0):
        raise ValueError(
            f'{name}: expected a number of groups that divides D = {dim}, '
            f'got {x.shape[1]}.'
        )


def _check_kind(
    name: str, x: Tensor, device: torch.device, double: bool
) -> None:
    """Raise unless type and device go with those of u."""
    if not x.is_floating_point():
        raise ValueError(
            f'{name}: expected a real floating-point type, got {x.dtype}.'
        )
    if (x.dtype == torch.float64) != double:
        expected = 'float64' if double else 'float32, bfloat16 or float16'
        raise ValueError(
            f'{name}: expected {expected} to go with u (float64 for all '
            f'tensors or for none), got {x.dtype}.'
        )
    if x.device != device:
        raise ValueError(
            f'{name}: expected the device of u, {device}, got {x.device}.'
        )


def _form(x: Tensor) -> str:
    return f'shape {tuple(x.shape)}'
