"""Where a network's time goes: by module and by kind of operator."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from statistics import median

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.profiler import ProfilerActivity, profile

from .measure import synchronize

# Time outside of every module's call. mmseg's segmentors call methods of the
# head and not the head itself: its own work is in here.
OUTSIDE = '(segmentor and head themselves)'
OTHER = 'other'
# The first pattern that is found in an operator's name decides. Operators
# named by none are 'elementwise' if torch calls them pointwise.
_KIND_PATTERNS = {
    'convolution': r'conv(olution|\d|_|$)',
    'matrix product': r'^(add|badd)?b?mm$|^addbmm$|^(add)?mv$|^v?dot$|linear$'
    r'|^matmul$|attention|^_scaled_mm$|^mean_gate',
    'sort': r'sort$|^topk$|^kthvalue$',
    'gather/scatter': r'gather|scatter|index|^take|embedding',
    'norm': r'(batch|layer|group|instance|rms|gated)_norm',
    'resize and pool': r'upsample|pool|grid_sample',
    'copy': r'copy|^clone$|^contiguous$|^to$|^cat$|^stack$|_pad|^pad|^roll$'
    r'|^flip$|^repeat|col2im|im2col',
}
ELEMENTWISE = 'elementwise'
KINDS = ('scan', *_KIND_PATTERNS, ELEMENTWISE, OTHER)


def time_modules(
    model: nn.Module,
    call: Callable[[], object],
    *,
    rounds: int,
    device: torch.device | str = 'cpu',
) -> list[dict]:
    """Time that each module takes itself, without the modules in it.

    The hooks that take it add some microseconds per module. On CUDA they
    wait for the device at every border, so the sum is longer than the call.

    Args:
        model: What is measured.
        call: Runs it once.
        rounds: How often.
        device: Where it runs.

    Returns:
        ``module`` (its name in the model, or ``OUTSIDE``), ``type``,
        ``calls`` and ``self_s``, both per round; longest first.
    """
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    with _timed(model, device, seconds=seconds, calls=calls):
        for _ in range(rounds):
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            seconds[OUTSIDE] += time.perf_counter() - start
    types = {name: type(module).__name__ for name, module in _named(model)}
    types[OUTSIDE] = type(model).__name__
    return [
        {
            'module': name,
            'type': types[name],
            'calls': calls[name] / rounds if name != OUTSIDE else 1.0,
            'self_s': spent / rounds,
        }
        for name, spent in seconds.most_common()
    ]


def _named(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if name]


@contextmanager
def _timed(
    model: nn.Module,
    device: torch.device | str,
    seconds: Counter,
    calls: Counter,
) -> Iterator[None]:
    """Add each call's time to its module and take it from the one around."""
    started: list[tuple[str, float]] = []
    names = {module: name for name, module in _named(model)}

    def enter(module: nn.Module, args: tuple) -> None:
        if module in names:
            synchronize(device)
            started.append((names[module], time.perf_counter()))

    def leave(module: nn.Module, args: tuple, output: object) -> None:
        if module in names:
            synchronize(device)
            name, start = started.pop()
            duration = time.perf_counter() - start
            seconds[name] += duration
            calls[name] += 1
            seconds[started[-1][0] if started else OUTSIDE] -= duration

    # On all modules there are: layers that see hooks of their own take them
    # for someone who waits for their output, and run another way.
    handles = (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def time_operators(
    call: Callable[[], object],
    *,
    rounds: int,
    device: torch.device | str = 'cpu',
) -> dict[str, dict[str, float | int]]:
    """Time of a call by kind of operator, as torch's profiler sees it.

    An operator's time is its own, without the operators that it calls; those
    within an operator of this package count as it does. The scan's backend
    'reference' is no operator, and what it calls counts by itself. Python's
    time is in none, and on CUDA only the device's time counts.

    Args:
        call: What is profiled, after one call that is not.
        rounds: How often. The median is taken for each kind: the profiler
            takes memory of its own between a network's, so that single calls
            have to wait for the system to find new memory for large maps.
        device: Where it runs.

    Returns:
        For each of ``KINDS``: ``seconds``, ``share`` of all of them, and
        ``calls``, the number of operators.
    """
    call()
    synchronize(device)
    profiles = [_profile_operators(call, device) for _ in range(rounds)]
    _, calls = profiles[-1]
    seconds = {
        kind: median(micros[kind] for micros, _ in profiles) / 1e6
        for kind in KINDS
    }
    total = sum(seconds.values()) or 1.0
    return {
        kind: {
            'seconds': seconds[kind],
            'share': seconds[kind] / total,
            'calls': calls[kind],
        }
        for kind in KINDS
    }


def _profile_operators(
    call: Callable[[], object], device: torch.device | str
) -> tuple[Counter[str], Counter[str]]:
    """Microseconds and numbers of operators of one call, by kind."""
    on_cuda = torch.device(device).type == 'cuda'
    activities = [ProfilerActivity.CPU]
    if on_cuda:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        call()
        synchronize(device)
    micros: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in profiler.events():
        # Kernels and torch's own marks have names of other forms.
        if re.fullmatch(r'\w+::\w+', event.name):
            kind = _kind_of_event(event)
            calls[kind] += 1
            micros[kind] += (
                event.self_device_time_total
                if on_cuda
                else event.self_cpu_time_total
            )
    return micros, calls


def _kind_of_event(event: FunctionEvent) -> str:
    around: FunctionEvent | None = event
    while around is not None:
        if around.name.startswith('crackssm::'):
            return kind_of_operator(around.name)
        around = around.cpu_parent
    return kind_of_operator(event.name)


@cache
def kind_of_operator(name: str) -> str:
    """The kind that an operator counts as.

    Args:
        name: Such as 'aten::add_'.

    Returns:
        One of ``KINDS``.
    """
    namespace, _, operator = name.partition('::')
    if namespace == 'crackssm' and operator.startswith('selective_scan'):
        return 'scan'
    base = operator.removesuffix('_')
    for kind, pattern in _KIND_PATTERNS.items():
        if re.search(pattern, base):
            return kind
    return ELEMENTWISE if _is_pointwise(operator) else OTHER


def _is_pointwise(operator: str) -> bool:
    packet = getattr(torch.ops.aten, operator, None)
    if packet is None:
        return False
    return any(
        torch.Tag.pointwise in getattr(packet, overload).tags
        for overload in packet.overloads()
    )
