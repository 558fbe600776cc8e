"""Time, memory and errors of the selective scan's backends on one case."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from ..ops.selective_scan import selective_scan
from ..ops.selective_scan.backends import REFERENCE
from .measure import (
    Timing,
    interleave,
    peak_extra_bytes,
    threads_of_torch,
)
from .scan_baselines import BASELINES, MAMBA_LOOP
from .scan_limit import BOTH, FORWARD, Probe, ScanCase, make_limit

# Loops are timed forward only: they are slow, and their backward, through one
# graph node per operation and step, slower still.
LOOPS = (REFERENCE, MAMBA_LOOP)
# All that is measured for comparison alone, and in how many rounds at most.
COMPARISONS = (REFERENCE, *BASELINES)
COMPARISON_ROUNDS = 3
# Steps over which errors are taken: the loop in float64 keeps every state.
ERROR_STEPS = 1024
_SEQUENCES = frozenset(('u', 'delta', 'B', 'C', 'dy'))


def make_inputs(
    case: ScanCase,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = 'cpu',
) -> dict[str, Tensor]:
    """Random inputs in the range of a trained model's, ready for a gradient.

    A is Mamba's initial -1, -2, ... -N; steps spread around its initial
    range, 0.001 to 0.1 after the softplus.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    batch, dim, length, d_state, groups = case.sizes
    inputs = {
        'u': normal(batch, dim, length),
        'delta': 0.5 * normal(batch, dim, length),
        'A': -torch.arange(1.0, d_state + 1).repeat(dim, 1),
        'B': normal(batch, groups, d_state, length),
        'C': normal(batch, groups, d_state, length),
        'D': torch.ones(dim),
        'delta_bias': torch.linspace(-6.9, -2.3, dim),
    }
    return {
        name: x.to(device=device, dtype=dtype).requires_grad_()
        for name, x in inputs.items()
    }


def run_scan(
    inputs: dict[str, Tensor], backend: str, direction: str, dy: Tensor
) -> dict[str, Tensor]:
    """One scan.

    Args:
        inputs: As of :func:`make_inputs`.
        backend: Name of a backend, 'reference', or one of ``BASELINES``.
        direction: ``FORWARD`` or ``BOTH``.
        dy: Gradient of the output, for ``BOTH``.

    Returns:
        ``y``, and for ``BOTH`` the gradient of each input by its name.
    """
    with torch.set_grad_enabled(direction == BOTH):
        if backend in BASELINES:
            y = BASELINES[backend](**inputs)
        else:
            y = selective_scan(**inputs, delta_softplus=True, backend=backend)
    if direction == FORWARD:
        return {'y': y}
    grads = torch.autograd.grad(y, list(inputs.values()), dy)
    return {'y': y.detach(), **dict(zip(inputs, grads, strict=True))}


def measure_errors(
    inputs: dict[str, Tensor], backends: Sequence[str], dy: Tensor
) -> dict[str, dict[str, float]]:
    """Errors against the loop in float64, over the first ``ERROR_STEPS``.

    Args:
        inputs: As of :func:`make_inputs`; rounding them to their precision is
            no error.
        backends: Whose errors. Of loops the output's is taken.
        dy: Gradient of the output.

    Returns:
        Per backend, for ``y`` and each input's gradient, the largest
        deviation over the largest value.
    """
    *parameters, dy = (
        x.detach()[..., :ERROR_STEPS] if name in _SEQUENCES else x.detach()
        for name, x in (*inputs.items(), ('dy', dy))
    )
    short = dict(zip(inputs, parameters, strict=True))
    exact = run_scan(
        {name: x.double().requires_grad_() for name, x in short.items()},
        backend=REFERENCE,
        direction=BOTH,
        dy=dy.double(),
    )
    errors = {}
    for backend in backends:
        results = run_scan(
            {name: x.requires_grad_() for name, x in short.items()},
            backend=backend,
            direction=FORWARD if backend in LOOPS else BOTH,
            dy=dy,
        )
        errors[backend] = {
            name: _relative_error(x, exact[name])
            for name, x in results.items()
        }
    return errors


def _relative_error(x: Tensor, exact: Tensor) -> float:
    scale = exact.abs().max().clamp_min(torch.finfo(exact.dtype).tiny)
    return ((x.double() - exact).abs().max() / scale).item()


def measure_case(
    case: ScanCase,
    backends: Sequence[str],
    *,
    probes: dict[str, Probe],
    rounds: int,
    more_threads: Sequence[int] = (),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = 'cpu',
) -> dict:
    """Measure backends on one case, forward and forward+backward.

    One round runs each of them and each probe once. Memory and errors are
    measured apart from time.

    Args:
        case: Sizes.
        backends: Names, as :func:`run_scan` takes them. ``COMPARISONS`` are
            measured in ``COMPARISON_ROUNDS`` rounds at most, and ``LOOPS``
            forward only.
        probes: From :func:`make_probes`, for the limit.
        rounds: Rounds.
        more_threads: Other numbers of threads, on which the backends and the
            probes, not the comparisons, are timed as well.
        dtype: Of the inputs.
        device: Of the inputs.

    Returns:
        ``case``; ``limit`` of the machine; ``rows``, one per backend and
        direction: its time, ``speedups`` (how many times as long each of the
        others takes, of loops their forward), ``extra_bytes`` (peak memory
        beyond inputs and results; None if not known), ``limit_s``,
        ``fraction_of_limit`` and ``errors``; ``on_threads``, one per number
        out of ``more_threads``: ``threads``, and how many times as fast as
        on torch's number of threads each call (``scans``, by backend and
        direction) and the machine itself (``probes``, by name) are on so
        many. Plain numbers, times in seconds.
    """
    inputs = make_inputs(case, dtype=dtype, device=device)
    dy = torch.ones_like(inputs['u'])
    scans: dict[tuple[str, str], Callable[[], dict[str, Tensor]]] = {
        (backend, direction): partial(
            run_scan, inputs, backend=backend, direction=direction, dy=dy
        )
        for backend in backends
        for direction in (FORWARD, BOTH)
        if backend not in LOOPS or direction == FORWARD
    }
    calls = {' '.join(key): call for key, call in scans.items()}
    calls |= {name: probe.call for name, probe in probes.items()}
    threaded = [name for name in calls if name.split()[0] not in COMPARISONS]
    timings = interleave(
        calls
        | {
            _on_threads(name, count): partial(_run_on, count, calls[name])
            for count in more_threads
            for name in threaded
        },
        rounds=rounds,
        fewer={
            ' '.join(key): min(rounds, COMPARISON_ROUNDS)
            for key in scans
            if key[0] in COMPARISONS
        },
        device=device,
    )
    limit = make_limit(probes, timings)
    errors = measure_errors(inputs, backends, dy=dy)
    rows = []
    for (backend, direction), call in scans.items():
        timing = timings[f'{backend} {direction}']
        least = limit.seconds(case, direction, inputs['u'].element_size())
        error = errors[backend]
        rows.append(
            {
                'backend': backend,
                'direction': direction,
                **timing.summary(),
                'speedups': {
                    other: _compared(timings, other, direction).median
                    / timing.median
                    for other in backends
                    if other != backend
                },
                'extra_bytes': _extra_bytes(call, device=device),
                **least,
                'fraction_of_limit': least['limit_s'] / timing.median,
                'errors': {'y': error['y']} if direction == FORWARD else error,
            }
        )
    return {
        'case': list(case.sizes),
        'limit': asdict(limit),
        'error_steps': min(case.length, ERROR_STEPS),
        'rows': rows,
        'on_threads': [
            _compare_threads(timings, threaded, probes, count)
            for count in more_threads
        ],
    }


def _compare_threads(
    timings: dict[str, Timing],
    names: Iterable[str],
    probes: dict[str, Probe],
    count: int,
) -> dict:
    """How many times as fast all is on so many threads."""

    def speedup(name: str) -> float:
        after = timings[_on_threads(name, count)].median
        return timings[name].median / after

    more = count / torch.get_num_threads()
    return {
        'threads': count,
        'scans': {x: speedup(x) for x in names if x not in probes},
        'probes': {
            name: speedup(name) * (more if probe.per_thread else 1)
            for name, probe in probes.items()
        },
    }


def _on_threads(name: str, count: int) -> str:
    return f'{name} on {count}'


def _run_on(threads: int, call: Callable[[], object]) -> None:
    with threads_of_torch(threads):
        call()


def _compared(timings: dict[str, Timing], name: str, direction: str) -> Timing:
    return timings[f'{name} {FORWARD if name in LOOPS else direction}']


def _extra_bytes(
    call: Callable[[], dict[str, Tensor]], device: torch.device | str
) -> int | None:
    """Peak memory of a scan beyond what it returns."""
    returned = sum(x.nbytes for x in call().values())
    extra = peak_extra_bytes(call, device=device)
    return None if extra is None else max(extra - returned, 0)
