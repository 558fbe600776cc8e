"""The selective scan as operators of ``torch.library``.

``crackssm::selective_scan``
    What a traced, compiled or exported model holds: one operator, inputs to
    output. Where a gradient is needed, its autograd kernel calls the two
    operators below; otherwise no state is ever stored.
``crackssm::selective_scan_save_states``
    The same with the border states that the backward starts from.
``crackssm::selective_scan_backward``
    The gradients.

The kernel of the autograd key is written out because what
``torch.library.register_autograd`` generates has one more output (the states)
in every graph, gradient or not, and costs more per call.
"""

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..registration import (
    Operator,
    differentiated,
    differentiated_once,
    register_operators,
)
from .backends import BACKENDS, load_backend, resolve_backend

_INPUTS = (
    'Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, '
    'Tensor? delta_bias, bool delta_softplus'
)


def compute_dtype(u: Tensor) -> torch.dtype:
    """Precision of the computation: float32, but float64 for float64."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def _resolve(backend: str, u: Tensor, A: Tensor) -> str:
    """Name of the backend for these inputs."""
    return resolve_backend(
        backend, u.device.type, compute_dtype(u), d_state=A.shape[1]
    )


def _run_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """Call the backend in its precision, autocast switched off."""
    dtype = compute_dtype(u)
    name = _resolve(backend, u, A)
    module = load_backend(name)
    if u.numel() == 0:
        shape = _states_shape(module, u, B) if save_states else (0,)
        return u.new_empty(u.shape), u.new_empty(shape, dtype=dtype)
    inputs = _as_read(name, (u, delta, A, B, C, D, delta_bias), dtype)
    with _autocast_off(u):
        y, states = module.forward(*inputs, delta_softplus, save_states)
    return y.to(u.dtype), states


def _scan(*args: Any) -> Tensor:
    return _run_forward(*args, save_states=False)[0]


def _scan_save_states(*args: Any) -> tuple[Tensor, Tensor]:
    return _run_forward(*args, save_states=True)


def _scan_backward(
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
    backend: str,
) -> tuple[Tensor, ...]:
    """Gradients in the dtypes of the inputs."""
    inputs = (u, delta, A, B, C, D, delta_bias)
    dtype = compute_dtype(u)
    name = _resolve(backend, u, A)
    if u.numel() == 0:
        grads = [None if x is None else torch.zeros_like(x) for x in inputs]
    else:
        read = _as_read(name, (dy, *inputs), dtype)
        with _autocast_off(u):
            grads = load_backend(name).backward(*read, delta_softplus, states)
    return tuple(
        u.new_empty(0) if x is None else grad.to(x.dtype)
        for x, grad in zip(inputs, grads, strict=True)
    )


def _fake_scan(u: Tensor, *_: object) -> Tensor:
    return u.new_empty(u.shape)


def _fake_scan_save_states(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(u)
    name = _resolve(backend, u, A)
    shape = _states_shape(load_backend(name), u, B)
    return u.new_empty(u.shape), u.new_empty(shape, dtype=dtype)


def _fake_scan_backward(
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
    backend: str,
) -> tuple[Tensor, ...]:
    return tuple(
        u.new_empty(0) if x is None else x.new_empty(x.shape)
        for x in (u, delta, A, B, C, D, delta_bias)
    )


class _SelectiveScanFunction(torch.autograd.Function):
    """Ties the operator that saves states to the one that uses them."""

    @staticmethod
    def forward(ctx: FunctionCtx, *args: Any) -> Tensor:
        *inputs, delta_softplus, backend = args
        # Forward and backward must mean the same backend by 'auto'.
        ctx.backend = _resolve(backend, u=inputs[0], A=inputs[2])
        ctx.delta_softplus = delta_softplus
        with torch._C._AutoDispatchBelowAutograd():
            y, states = torch.ops.crackssm.selective_scan_save_states.default(
                *inputs, delta_softplus, ctx.backend
            )
        ctx.save_for_backward(*inputs, states)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, states = ctx.saved_tensors
        grads = torch.ops.crackssm.selective_scan_backward.default(
            dy, *inputs, ctx.delta_softplus, states, ctx.backend
        )
        return (
            *(
                None if x is None else grad
                for x, grad in zip(inputs, grads, strict=True)
            ),
            None,
            None,
        )


def _as_read(
    backend: str, tensors: tuple[Tensor | None, ...], dtype: torch.dtype
) -> list[Tensor | None]:
    """Tensors in the types that a backend reads."""
    if BACKENDS[backend].reads_half:
        return list(tensors)
    return [
        x if x is None or x.dtype == dtype else x.to(dtype) for x in tensors
    ]


def _states_shape(module: ModuleType, u: Tensor, B: Tensor) -> tuple[int, ...]:
    batch, dim, length = u.shape
    if batch == 0:
        return (0,)
    return module.states_shape(
        batch=batch,
        dim=dim,
        length=length,
        d_state=B.shape[2],
        groups=B.shape[1],
        device_type=u.device.type,
    )


def _autocast_off(u: Tensor) -> AbstractContextManager:
    device_type = u.device.type
    if not torch.is_autocast_enabled(device_type):
        return nullcontext()
    return torch.autocast(device_type=device_type, enabled=False)


_LIBRARY = register_operators(
    {
        'selective_scan': Operator(
            schema=f'({_INPUTS}, str backend) -> Tensor',
            kernel=_scan,
            fake=_fake_scan,
            autograd=differentiated('selective_scan', _SelectiveScanFunction),
        ),
        'selective_scan_save_states': Operator(
            schema=f'({_INPUTS}, str backend) -> (Tensor, Tensor)',
            kernel=_scan_save_states,
            fake=_fake_scan_save_states,
        ),
        # An absent D or delta_bias has an empty gradient: a schema has no
        # optional results.
        'selective_scan_backward': Operator(
            schema=(
                f'(Tensor dy, {_INPUTS}, Tensor states, str backend) -> '
                '(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)'
            ),
            kernel=_scan_backward,
            fake=_fake_scan_backward,
            autograd=differentiated_once(
                'selective_scan_backward',
                'The selective scan has no second derivative: '
                'create_graph=True needs '
                "selective_scan(..., backend='reference').",
            ),
        ),
    },
    dispatch_key='CompositeExplicitAutograd',
)
