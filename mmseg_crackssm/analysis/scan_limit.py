"""The time that no selective scan on this machine can stay below.

A scan has to compute, for each of B·D·L channel-steps, N decays ``exp(dt A)``
and the softplus of the step, which holds one more exponential, and has to
move its inputs and outputs through memory once. Its limit is the longer of

    exponentials / rate of exponentials        bytes / rate of copying

(the longer and not the sum, since a processor does both at once), with

    direction           exponentials      bytes, by the size of a number
    forward             B D L (N + 1)     3 B D L + 2 B G N L
    forward, backward   2 B D L (N + 1)   8 B D L + 6 B G N L

Forward reads u, delta, B, C and writes y. Backward reads dy, u, delta, B, C
and writes the gradients of u, delta, B, C. It needs the decays again: the
limit counts them as computed twice, as our kernels do, because to keep them
would write and read N numbers per channel-step, which takes longer. All other
arithmetic is left out, so that the limit is not reached; the parameters A, D
and delta_bias are, as they are small, and so are the saved states, which are
a kernel's own choice. Where everything fits into a cache, copying is faster
than measured here and a scan may pass this limit.

Both rates are measured, in the rounds in which the scans are. That of
exponentials is the best among our C kernel's exponential, on each instruction
set that the processor has, and torch's. On CUDA there is no such measurement
from Python (one call per operation is bound by memory): the limit there is
that of copying alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ..ops import native
from .measure import Timing

FORWARD = 'forward'
BOTH = 'forward+backward'
# Far beyond any last-level cache.
COPY_BYTES = 2**27
COPY = 'copy'
# Some milliseconds: long against a call, short against a scan.
NATIVE_REPEATS = 10_000
TORCH_NUMBERS = 2**16
TORCH_REPEATS = 50


@dataclass(frozen=True)
class ScanCase:
    """Sizes of one scan: B, D, L, N and G of the operator's contract."""

    batch: int
    dim: int
    length: int
    d_state: int
    groups: int

    def __post_init__(self) -> None:
        if min(self.sizes) < 1 or self.dim % self.groups:
            raise ValueError(
                'expected B D L N G of at least 1 and D a multiple of G, got '
                + ' '.join(map(str, self.sizes))
            )

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        return self.batch, self.dim, self.length, self.d_state, self.groups


@dataclass(frozen=True)
class Probe:
    """A call that does one thing alone, and how much of it.

    Attributes:
        call: Does it.
        amount: Exponentials computed, or bytes read and written.
        per_thread: Whether every thread does as much as one does alone.
    """

    call: Callable[[], object]
    amount: int
    per_thread: bool = False


@dataclass(frozen=True)
class Limit:
    """What was measured of a machine.

    Attributes:
        exps_per_second: Exponentials; None on CUDA.
        exp_source: Whose exponential was the fastest.
        copy_bytes_per_second: Bytes read plus bytes written by a copy.
    """

    exps_per_second: float | None
    exp_source: str | None
    copy_bytes_per_second: float

    def seconds(
        self, case: ScanCase, direction: str, itemsize: int
    ) -> dict[str, float | None]:
        """Least times of a scan; see the module.

        Args:
            case: Sizes.
            direction: ``FORWARD`` or ``BOTH``.
            itemsize: Bytes per number.

        Returns:
            ``exp_s`` (None on CUDA), ``copy_s`` and ``limit_s``, the longer
            one.
        """
        both = direction == BOTH
        steps = case.batch * case.dim * case.length
        shared = case.batch * case.groups * case.d_state * case.length
        exps = steps * (case.d_state + 1) * (2 if both else 1)
        numbers = 8 * steps + 6 * shared if both else 3 * steps + 2 * shared
        copy_s = numbers * itemsize / self.copy_bytes_per_second
        exp_s = None
        if self.exps_per_second is not None:
            exp_s = exps / self.exps_per_second
        return {
            'exp_s': exp_s,
            'copy_s': copy_s,
            'limit_s': max(copy_s, exp_s or 0.0),
        }


def make_probes(device: torch.device, dtype: torch.dtype) -> dict[str, Probe]:
    """The measurements that a limit is made of, by name.

    Args:
        device: Where the scans run.
        dtype: Precision that they compute in.
    """
    source = torch.ones(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    probes = {COPY: Probe(partial(target.copy_, source), 2 * COPY_BYTES)}
    if device.type != 'cpu':
        return probes
    exponents = torch.linspace(-8, 0, TORCH_NUMBERS, dtype=dtype)
    probes['torch'] = Probe(
        partial(_exp_repeatedly, exponents, torch.empty_like(exponents)),
        TORCH_NUMBERS * TORCH_REPEATS,
    )
    if dtype == torch.float32 and native.is_available():
        for name in native.INSTRUCTION_SETS:
            call = partial(_exp_of_kernel, name)
            try:
                probes[f'native {name}'] = Probe(
                    call, amount=call(), per_thread=True
                )
            except ValueError:  # not on this processor
                break
    return probes


def make_limit(
    probes: Mapping[str, Probe], timings: Mapping[str, Timing]
) -> Limit:
    """Turn the durations of the probes into rates, by the medians."""
    rates = {
        name: probe.amount / timings[name].median
        for name, probe in probes.items()
    }
    copy = rates.pop(COPY)
    best = max(rates, key=rates.__getitem__, default=None)
    return Limit(
        exps_per_second=rates.get(best),
        exp_source=best,
        copy_bytes_per_second=copy,
    )


def _exp_repeatedly(exponents: torch.Tensor, out: torch.Tensor) -> None:
    for _ in range(TORCH_REPEATS):
        torch.exp(exponents, out=out)


def _exp_of_kernel(name: str) -> int:
    before = native.instruction_set()
    native.set_instruction_set(name)
    try:
        return native.probe_exp(NATIVE_REPEATS)
    finally:
        native.set_instruction_set(before)
