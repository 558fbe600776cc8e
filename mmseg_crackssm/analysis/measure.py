"""Time and memory of calls, side by side on one machine."""

import ctypes
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..apis.errors import UsageError

MEBI = 2**20


@dataclass(frozen=True)
class Timing:
    """Durations of one call, in seconds, one per round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, float | int]:
        """Statistics in seconds.

        Returns:
            ``median_s``, ``min_s``, ``p90_s`` (interpolated 90th percentile),
            ``spread`` (longest minus shortest, over the median) and
            ``rounds``.
        """
        shortest, longest = min(self.seconds), max(self.seconds)
        return {
            'median_s': self.median,
            'min_s': shortest,
            'p90_s': float(np.percentile(self.seconds, 90)),
            'spread': (longest - shortest) / self.median,
            'rounds': len(self.seconds),
        }


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 1,
    fewer: Mapping[str, int] | None = None,
    device: torch.device | str = 'cpu',
) -> dict[str, Timing]:
    """Time calls in turn, so that a slow minute slows all of them.

    Every other round goes through them backwards: a drift within the rounds
    then favours none.

    Args:
        calls: What to time, by name.
        rounds: How often each is timed.
        warmup: Rounds before those, which do not count.
        fewer: Names of slow calls and how many rounds, of warm-up too, are
            enough for them.
        device: Where they run; on CUDA a duration ends when the device has
            finished.
    """
    most = {name: rounds for name in calls} | dict(fewer or {})
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(-warmup, rounds):
        names = list(calls) if index % 2 == 0 else list(calls)[::-1]
        for name in names:
            if (index if index >= 0 else index + warmup) >= most[name]:
                continue
            duration = _time_once(calls[name], device=device)
            if index >= 0:
                seconds[name].append(duration)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _time_once(
    call: Callable[[], object], device: torch.device | str
) -> float:
    synchronize(device)
    start = time.perf_counter()
    # Results are freed within the time, as they are in a loop of calls.
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device | str) -> None:
    """Wait for a CUDA device; the CPU is never behind."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def peak_extra_bytes(
    call: Callable[[], object], device: torch.device | str
) -> int | None:
    """Memory that a call needs at its peak, beyond what was there before.

    What it returns is included. On the CPU these are resident pages of the
    whole process (``VmHWM`` of ``/proc/self/status``, set back before): work
    space of C code counts, and so do blocks freed within the call that malloc
    keeps; memory that is reserved and never touched does not. It is exact to
    some hundred KiB. On CUDA it is what torch's allocator handed out: work
    space that libraries take by themselves does not count.

    Args:
        call: Called once. What it keeps from call to call should be there
            already: warm it up.
        device: Where it runs.

    Returns:
        Bytes, or None where the system cannot tell (not Linux).
    """
    gc.collect()
    if torch.device(device).type == 'cuda':
        synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # Pages that malloc holds back would be used again and not be counted.
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return None
    before = _status_bytes('VmHWM')
    call()
    return max(_status_bytes('VmHWM') - before, 0)


def _status_bytes(field: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'/proc/self/status has no {field}')


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent k of ``cost = c * size ** k``, least squares of logarithms.

    Args:
        sizes: Positive, at least two different ones.
        costs: Positive, one per size.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(costs):
        raise ValueError(
            'expected a cost for each of at least two different sizes, got '
            f'sizes {list(sizes)} and costs {list(costs)}'
        )
    return float(np.polyfit(np.log(sizes), np.log(costs), deg=1)[0])


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Run with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def find_device(name: str) -> torch.device:
    """The device of a command line.

    Raises:
        UsageError: If it is neither the CPU nor a CUDA device that is there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise UsageError(f"--device: expected 'cpu' or 'cuda', got {name!r}")
    if device.type == 'cuda' and not (
        torch.cuda.is_available()
        and (device.index or 0) < torch.cuda.device_count()
    ):
        raise UsageError(
            f'--device {name}: torch sees no such device, use --device cpu'
        )
    return device


def check_at_least_one(**options: int) -> None:
    """Refuse numbers of an option (its name, underscored) below 1.

    Raises:
        UsageError: Naming the option.
    """
    for name, value in options.items():
        if value < 1:
            raise UsageError(
                f'--{name.replace("_", "-")}: expected at least 1, got {value}'
            )


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """What a measurement should be quoted with."""
    return {
        'processor': _processor_name(),
        'device': (
            torch.cuda.get_device_name(device)
            if device.type == 'cuda'
            else 'cpu'
        ),
        'threads': torch.get_num_threads(),
        'torch': torch.__version__,
    }


def _processor_name() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    for line in lines:
        label, _, text = line.partition(':')
        if label.strip() == 'model name':
            return text.strip()
    return platform.processor() or platform.machine()


def format_machine(machine: Mapping[str, str | int]) -> str:
    """The description as one line."""
    return ', '.join(f'{label}: {text}' for label, text in machine.items())


def format_mebi(count: int | None) -> str:
    """Bytes in MiB; a dash where they are not known."""
    return '-' if count is None else f'{count / MEBI:.1f}'


def tell_progress(text: str) -> None:
    """Say on the standard error what is being measured."""
    sys.stderr.write(f'{text}\n')
    sys.stderr.flush()
