"""How far a backend of the selective scan may be from its exact result."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

NAMES = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')
# Of one elementary operation, in units of the rounding error: an exp or a
# softplus is off by up to 4 of them in every backend.
ROUNDINGS = 4
# Of the exponent dt A: the torch backend takes exp(A sum(dt)) over a chunk of
# 16 steps, and a sum of 16 has up to 15 roundings.
EXPONENT_ROUNDINGS = 5 * ROUNDINGS
# Largest number, with room for products that a backend forms on its way.
LARGEST = {torch.float32: 1e37, torch.float64: 1e300}


def error_bounds(
    inputs: dict[str, Tensor],
    dy: Tensor,
    delta_softplus: bool,
    precision: torch.dtype,
    chunk_steps: int = 1,
) -> dict[str, Tensor]:
    """Largest error of the output and of each gradient, by element.

    A running error analysis: every quantity of the recurrence is replaced by
    its magnitude, every sum by the sum of magnitudes, and what this
    computation grows by when each of its operations is off by
    :data:`ROUNDINGS` upwards bounds what roundings do to the true one, to
    first order. On top, an operation may lose what lies below the smallest
    normal number, because the C kernel takes such numbers for zero, and a sum
    of n terms is off by n roundings.

    Args:
        inputs: Inputs of ``selective_scan`` in float64, by name.
        dy: Gradient of the output.
        delta_softplus: Whether the steps pass a softplus.
        precision: What the backend computes in.
        chunk_steps: Over how many steps the backend forms one decay.

    Returns:
        Bounds in the shapes of output ('y') and gradients. They are not
        finite where an input that is not finite is part of the result, or
        where the computation may leave the range of the precision.
    """
    info = torch.finfo(precision)
    unit = info.eps / 2
    # In float64 the growth by its own roundings would itself be rounded away;
    # it is linear in their size.
    visible = torch.finfo(torch.float32).eps / 2

    def grown(rounding: float, tiny: float) -> dict[str, Tensor]:
        return _magnitudes(
            inputs,
            dy,
            delta_softplus,
            rounding=rounding,
            tiny=tiny,
            largest=LARGEST[precision],
            chunk_steps=chunk_steps,
        )

    exact = grown(rounding=0.0, tiny=0.0)
    rounded = grown(rounding=visible, tiny=0.0)
    flushed = grown(rounding=0.0, tiny=info.tiny)
    batch, dim, length = inputs['u'].shape
    d_state = inputs['A'].shape[1]
    terms = dict.fromkeys(('y', *NAMES), batch * length)
    terms.update(y=d_state, u=d_state, delta=d_state, B=dim, C=dim)
    return {
        name: (rounded[name] - x) * (unit / visible)
        + (flushed[name] - x)
        + (terms[name] + ROUNDINGS) * (unit * x + info.tiny)
        for name, x in exact.items()
    }


def _magnitudes(
    inputs: dict[str, Tensor],
    dy: Tensor,
    delta_softplus: bool,
    rounding: float,
    tiny: float,
    largest: float,
    chunk_steps: int,
) -> dict[str, Tensor]:
    """Output and gradients with every term replaced by its magnitude.

    Args:
        inputs: See :func:`error_bounds`.
        dy: See there.
        delta_softplus: See there.
        rounding: Relative error of a rounding; 0 for the exact magnitudes.
        tiny: What an operation may lose besides.
        largest: What is larger becomes infinite.
        chunk_steps: See :func:`error_bounds`.
    """
    step = ROUNDINGS * rounding

    def up(x: Tensor) -> Tensor:
        x = x * (1 + step) + tiny
        return torch.where(x > largest, torch.inf, x)

    u, dy = up(inputs['u'].abs()), up(dy.abs())
    groups = max(_groups(inputs['B']), _groups(inputs['C']))
    repeats = u.shape[1] // groups
    B, C = (
        up(_grouped(inputs[name], groups).abs()).repeat_interleave(repeats, 1)
        for name in 'BC'
    )
    dt, dt_error, slope = steps_and_errors(inputs, delta_softplus, step, tiny)
    A = inputs['A']
    exponent = dt.unsqueeze(2) * A.unsqueeze(-1)
    exponent_error = (
        dt_error.unsqueeze(2) * A.abs().unsqueeze(-1)
        + EXPONENT_ROUNDINGS * rounding * exponent.abs()
        + tiny * (dt.abs().unsqueeze(2) + A.abs().unsqueeze(-1))
    )
    decay = up(torch.exp(exponent + exponent_error))
    overflows = _chunk_growth(exponent, chunk_steps) > math.log(largest)
    decay = torch.where(overflows, torch.inf, decay)
    dt = up(dt.abs() + dt_error)
    drive = up(dt * u)

    driven = up(drive.unsqueeze(2) * B)
    pulled = up(dy.unsqueeze(2) * C)
    h = _accumulate(decay, driven, up)
    before = F.pad(h[..., :-1], (1, 0))
    # Gradient of the state after a step: the mirror image, decays one later.
    r = _accumulate(
        F.pad(decay[..., 1:], (0, 1)).flip(-1), pulled.flip(-1), up
    ).flip(-1)
    # In whatever order a backend multiplies, no product may overflow.
    in_range = up(r * before).isfinite()
    kept = up(torch.where(in_range, up(r * decay) * before, torch.inf))
    along_B = up((r * B).sum(2))
    ddelta = up(
        slope * (up(u * along_B) + up((kept * A.abs().unsqueeze(-1)).sum(2)))
    )
    result = {
        'y': up((h * C).sum(2)),
        'u': up(dt * along_B),
        'delta': ddelta,
        'A': up((kept * dt.unsqueeze(2)).sum((0, 3))),
        'B': _like(inputs['B'], up(r * drive.unsqueeze(2)), groups),
        'C': _like(inputs['C'], up(h * dy.unsqueeze(2)), groups),
    }
    if 'D' in inputs:
        D = up(inputs['D'].abs()).unsqueeze(-1)
        result['y'] = result['y'] + up(D * u)
        result['u'] = result['u'] + up(D * dy)
        result['D'] = (dy * u).sum((0, 2))
    if 'delta_bias' in inputs:
        result['delta_bias'] = ddelta.sum((0, 2))
    return {name: up(x) for name, x in result.items()}


def steps_and_errors(
    inputs: dict[str, Tensor],
    delta_softplus: bool,
    step: float,
    tiny: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step sizes, the errors of their computation, and dt / ddelta."""
    delta = inputs['delta']
    size = delta.abs()
    if 'delta_bias' in inputs:
        bias = inputs['delta_bias'].unsqueeze(-1)
        delta, size = delta + bias, size + bias.abs()
    error = step * size + tiny
    if not delta_softplus:
        return delta, error, torch.ones_like(delta)
    dt, slope = F.softplus(delta), torch.sigmoid(delta)
    return (
        dt,
        slope * error + step * dt + tiny,
        slope * (1 + step + error) + tiny,
    )


def _chunk_growth(exponent: Tensor, steps: int) -> Tensor:
    """Logarithm of the largest decay of a chunk that each step may be part of.

    Where states grow, that of a whole chunk may leave the range although the
    states, driven late or read early, do not.
    """
    growth = exponent.clamp_min(0).nan_to_num(nan=0.0, posinf=torch.inf)
    chunks = F.pad(growth, (steps - 1, steps - 1)).unfold(-1, steps, 1)
    return chunks.sum(-1).unfold(-1, steps, 1).amax(-1)


def _accumulate(
    decay: Tensor, added: Tensor, up: Callable[[Tensor], Tensor]
) -> Tensor:
    """``x_t = decay_t x_{t-1} + added_t`` along the last dimension."""
    state = torch.zeros_like(added[..., 0])
    states = []
    for decay_t, added_t in zip(
        decay.unbind(-1), added.unbind(-1), strict=True
    ):
        state = up(decay_t * state + added_t)
        states.append(state)
    return torch.stack(states, dim=-1)


def _groups(x: Tensor) -> int:
    return 1 if x.dim() == 3 else x.shape[1]


def _grouped(x: Tensor, groups: int) -> Tensor:
    x = x.unsqueeze(1) if x.dim() == 3 else x
    return x.expand(-1, groups, -1, -1)


def _like(x: Tensor, by_channel: Tensor, groups: int) -> Tensor:
    """Sum (B, D, N, L) over the channels that share a row of B or C."""
    total = by_channel.unflatten(1, (groups, -1)).sum(2)
    if _groups(x) < groups:
        total = total.sum(1, keepdim=True)
    return total.reshape(x.shape)
