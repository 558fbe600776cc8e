"""The C kernel for the CPU, a library loaded with ctypes.

The kernel (``csrc/``) is an optional part of the installation: ``setup.py``
compiles it where there is a C compiler. It uses AVX-512, AVX2 or the
processor's baseline, whichever is the best at hand, and as many threads as
``torch.get_num_threads()`` says, taken from the OpenMP runtime that torch has
loaded. In a process made by ``fork``, such as a ``DataLoader`` worker, it
stays on the calling thread.

Results repeat bit by bit from run to run for a given number of threads and
instruction set. Denormal numbers count as zero inside the kernel on x86-64.
"""

import ctypes
import logging
import os
from functools import cache
from pathlib import Path

# torch comes first on purpose: the library uses the OpenMP runtime that torch
# has loaded.
import torch
from mmengine.logging import print_log
from torch import Tensor

LIBRARY_NAME = '_native.so'
ISA_VARIABLE = 'MMSEG_CRACKSSM_SCAN_ISA'
# In the order of the enumeration in csrc/calls.h.
INSTRUCTION_SETS = ('baseline', 'avx2', 'avx512')
# Each is there once more for double, and takes a structure of csrc/calls.h.
FUNCTIONS = tuple(
    name + direction
    for name in (
        'scan',
        'scan_paths',
        'gated_norm',
        'mean_gate',
        'upsample_concat',
        'batch_norm_relu',
    )
    for direction in ('', '_backward')
)
# Steps between two saved states of the scan: SAVED_EVERY of csrc/blocks.h.
SAVED_EVERY = 32
# Rows of a task of the gated normalisation: GATE_ROWS of csrc/blocks.h.
GATE_ROWS = 64

_INTERFACE_VERSION = 5
# CALL_IS_BAD of csrc/calls.h.
_CALL_IS_BAD = 2
_REMEDY = (
    'install a C compiler (gcc or clang; Debian: apt-get install gcc) and '
    'reinstall mmseg_crackssm with `pip install --no-cache-dir '
    '--force-reinstall --no-deps` from its source, adding -v to see the '
    "compiler's messages; in a checkout: `python setup.py build_ext "
    "--inplace`. Until then the slower 'torch' backend serves."
)


class BadCallError(RuntimeError):
    """The kernel does not take what a call holds."""


def unavailable_reason() -> str | None:
    """What keeps the kernel from running here.

    Returns:
        None when it runs, else what is missing and how to get it. The first
        time that something is missing, one line of the log says so too.
    """
    reason = _load()[1]
    if reason is not None:
        _log_once(reason)
    return reason


def is_available() -> bool:
    """Whether the compiled kernel is there and fits this version."""
    return _load()[1] is None


def instruction_set() -> str:
    """The instruction set in use: 'avx512', 'avx2' or 'baseline'."""
    return INSTRUCTION_SETS[_library().native_level()]


def set_instruction_set(name: str | None) -> None:
    """Use another instruction set, for tests and measurements.

    A backward must run on the instruction set of its forward.

    Args:
        name: One of ``INSTRUCTION_SETS``, or None for the best.

    Raises:
        ValueError: There is no such instruction set, or this processor does
            not have it.
        RuntimeError: The kernel is not available.
    """
    _force_level(_library(), name)


def probe_exp(repeats: int) -> int:
    """Compute exponentials as the kernel does, from and into fast memory.

    Timing it tells how fast the kernel could be if nothing but exponentials
    took time. Runs on as many threads as a scan, on the instruction set in
    use, in float32.

    Args:
        repeats: How often each thread fills its part of the first-level
            cache.

    Returns:
        Number of exponentials computed.

    Raises:
        RuntimeError: The kernel is not available, or there is no memory.
    """
    count = _library().native_probe_exp(repeats, torch.get_num_threads())
    if count < 1:
        raise RuntimeError(
            f'native_probe_exp of {LIBRARY_NAME} failed for {repeats} repeats.'
        )
    return count


def addresses(*tensors: Tensor | None) -> tuple[int, ...]:
    """Where tensors begin in memory; 0 for None.

    Args:
        tensors: On the CPU. They have to outlive the call.
    """
    return tuple(0 if x is None else x.data_ptr() for x in tensors)


def call(function: str, packed: bytes, x: Tensor) -> None:
    """Call a function of the library, which releases the GIL.

    Args:
        function: One of :data:`FUNCTIONS`.
        packed: The structure that it takes.
        x: The main input: float32 or float64, as all others.

    Raises:
        BadCallError: The kernel does not take these sizes.
        RuntimeError: The kernel is not available, or there is no memory for
            its work space.
    """
    if x.dtype == torch.float64:
        function += '_double'
    status = getattr(_library(), function)(packed)
    if status == _CALL_IS_BAD:
        raise BadCallError(
            f'{function} of {LIBRARY_NAME}: sizes out of range for an input '
            f'of shape {tuple(x.shape)}.'
        )
    if status != 0:
        raise RuntimeError(
            f'{function} of {LIBRARY_NAME} found no memory for its work space '
            f'(status {status}).'
        )


def _library() -> ctypes.CDLL:
    library, reason = _load()
    if library is None:
        raise RuntimeError(f"backend 'native' is not available: {reason}")
    return library


@cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    path = Path(__file__).with_name(LIBRARY_NAME)
    if not path.is_file():
        return None, f'the C kernel was not built at installation; {_REMEDY}'
    try:
        library = ctypes.CDLL(str(path))
        library.native_probe_exp.argtypes = (ctypes.c_int64, ctypes.c_int64)
        library.native_probe_exp.restype = ctypes.c_int64
        fits = (
            library.native_interface_version() == _INTERFACE_VERSION
            and library.scan_saved_every() == SAVED_EVERY
            and library.gated_norm_task_rows() == GATE_ROWS
        )
    except (OSError, AttributeError) as error:
        return None, f'the C kernel does not load ({error}); {_REMEDY}'
    if not fits:
        return None, f'the C kernel is from another version; {_REMEDY}'
    for name in FUNCTIONS:
        for function in (name, f'{name}_double'):
            getattr(library, function).argtypes = (ctypes.c_char_p,)
    _force_level(library, os.environ.get(ISA_VARIABLE) or None)
    return library, None


@cache
def _log_once(reason: str) -> None:
    print_log(
        f"Selective scan backend 'native' is not available: {reason}",
        logger='current',
        level=logging.WARNING,
    )


def _force_level(library: ctypes.CDLL, name: str | None) -> None:
    if name is not None and name not in INSTRUCTION_SETS:
        raise ValueError(
            f'instruction set: expected one of {INSTRUCTION_SETS}, got '
            f'{name!r} (from the argument or from {ISA_VARIABLE}).'
        )
    level = -1 if name is None else INSTRUCTION_SETS.index(name)
    used = library.native_set_level(level)
    if name is not None and used != level:
        raise ValueError(
            f'instruction set: this processor has none above '
            f'{INSTRUCTION_SETS[used]!r}, got {name!r}. Leave '
            f'{ISA_VARIABLE} unset for the best one.'
        )
