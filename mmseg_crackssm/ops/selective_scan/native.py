"""The ``native`` backend: a C kernel for the CPU, loaded with ctypes.

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
import struct
from functools import cache
from pathlib import Path

# torch comes first on purpose: the library uses the OpenMP runtime that torch
# has loaded.
import torch
from mmengine.logging import print_log
from torch import Tensor

from .backends import requested_backend
from .layout import contiguous, unit_time_stride

LIBRARY_NAME = '_native_scan.so'
ISA_VARIABLE = 'MMSEG_CRACKSSM_SCAN_ISA'
# In the order of the enumeration in csrc/scan.h.
INSTRUCTION_SETS = ('baseline', 'avx2', 'avx512')

_INTERFACE_VERSION = 5
# SCAN_BAD_CALL of csrc/scan.h.
BAD_CALL = 2
# Steps between two saved states: SAVED_EVERY of csrc/blocks.h.
_SAVED_EVERY = 32
# Rows of a task of the gated normalisation: GATE_ROWS of csrc/blocks.h.
GATE_ROWS = 64
_REMEDY = (
    'install a C compiler (gcc or clang; Debian: apt-get install gcc) and '
    'reinstall mmseg_crackssm with `pip install --no-cache-dir '
    '--force-reinstall --no-deps` from its source, adding -v to see the '
    "compiler's messages; in a checkout: `python setup.py build_ext "
    "--inplace`. Until then the slower 'torch' backend serves."
)
# scan_call of csrc/scan.h: 17 pointers, then 20 sizes and strides.
_CALL = struct.Struct('17P20q')


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


def serves(*tensors: Tensor | None) -> bool:
    """Whether the kernel computes with tensors, if it has an operator for it.

    It does in one precision on the CPU, unless the environment variable of
    the scan's backend asks for another. A traced model holds PyTorch's own
    operators.

    Args:
        tensors: None counts for nothing.
    """
    if torch.compiler.is_compiling():
        return False
    if requested_backend('auto') not in ('auto', 'native'):
        return False
    kinds = {(x.device.type, x.dtype) for x in tensors if x is not None}
    return (
        kinds in ({('cpu', torch.float32)}, {('cpu', torch.float64)})
        and is_available()
    )


def serves_maps(*maps: Tensor | None) -> bool:
    """Whether the kernel takes maps as they lie in memory: channels last.

    Args:
        maps: (B, C, H, W); None counts for nothing.
    """
    return serves(*maps) and all(
        x is None or x.is_contiguous(memory_format=torch.channels_last)
        for x in maps
    )


def instruction_set() -> str:
    """The instruction set in use: 'avx512', 'avx2' or 'baseline'."""
    return INSTRUCTION_SETS[_library().scan_level()]


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
    count = _library().scan_probe_exp(repeats, torch.get_num_threads())
    if count < 1:
        raise RuntimeError(
            f'scan_probe_exp of {LIBRARY_NAME} failed for {repeats} repeats.'
        )
    return count


def states_shape(
    batch: int,
    dim: int,
    length: int,
    d_state: int,
    groups: int,
    device_type: str,
) -> tuple[int, ...]:
    """Shape of the states that the backward starts from.

    Their order in memory is the kernel's own. Plain arithmetic, for symbolic
    sizes as well.

    Args:
        batch: Number of sequences.
        dim: Channels.
        length: Steps.
        d_state: States per channel.
        groups: Groups of channels.
        device_type: Type of the device.
    """
    return batch, dim, (length + _SAVED_EVERY - 1) // _SAVED_EVERY, d_state


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save_states: bool,
) -> tuple[Tensor, Tensor]:
    """Output of the scan, and the states at the borders of segments.

    All tensors are on the CPU, all float32 or all float64 (a slow path, for
    checks of the gradient). Rows may have any stride; where time has one
    other than 1, a copy is made.

    Args:
        u: Input, (B, D, L).
        delta: Step sizes, (B, D, L).
        A: State matrix, (D, N).
        B: Input weights, (B, G, N, L).
        C: Output weights, (B, G, N, L).
        D: Skip weights, (D,).
        delta_bias: Added to ``delta``, (D,).
        delta_softplus: Whether the steps pass a softplus.
        save_states: Whether a backward follows.

    Returns:
        Output (B, D, L), and states of :func:`states_shape`, or an empty
        tensor if they are not saved.
    """
    batch, dim, length = u.shape
    groups, d_state = B.shape[1:3]
    y = u.new_empty(u.shape)
    shape = (
        states_shape(batch, dim, length, d_state, groups, u.device.type)
        if save_states
        else (0,)
    )
    states = u.new_empty(shape)
    _run(
        'scan_forward',
        inputs=(u, delta, A, B, C, D, delta_bias),
        delta_softplus=delta_softplus,
        states=states if save_states else None,
        dy=None,
        outputs=(y, *(None,) * 7),
    )
    return y, states


def backward(
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
) -> tuple[Tensor | None, ...]:
    """Gradients of the scan.

    Args:
        dy: Gradient of the output, (B, D, L).
        u: As in :func:`forward`, like the arguments up to the last.
        delta: See there.
        A: See there.
        B: See there.
        C: See there.
        D: See there.
        delta_bias: See there.
        delta_softplus: See there.
        states: What the forward saved.

    Returns:
        Gradients of u, delta, A, B, C, D and delta_bias in their shapes; None
        for an absent D or delta_bias.
    """
    batch, dim, _ = u.shape
    du, ddelta = u.new_empty(u.shape), u.new_empty(u.shape)
    dA = u.new_empty((batch, *A.shape))
    dB, dC = u.new_empty(B.shape), u.new_empty(B.shape)
    dD, dbias = (
        None if x is None else u.new_empty((batch, dim))
        for x in (D, delta_bias)
    )
    _run(
        'scan_backward',
        inputs=(u, delta, A, B, C, D, delta_bias),
        delta_softplus=delta_softplus,
        states=states,
        dy=dy,
        outputs=(None, du, ddelta, dA, dB, dC, dD, dbias),
    )
    dA, dD, dbias = (_sum_batch(x) for x in (dA, dD, dbias))
    return du, ddelta, dA, dB, dC, dD, dbias


def _sum_batch(x: Tensor | None) -> Tensor | None:
    """Sum over sequences; the only one needs no operation."""
    if x is None:
        return None
    return x[0] if x.shape[0] == 1 else x.sum(0)


def call(function: str, packed: bytes) -> int:
    """Call a function of the library, which releases the GIL.

    Args:
        function: Its name.
        packed: The structure that it takes.

    Returns:
        0, or :data:`BAD_CALL`.

    Raises:
        RuntimeError: The kernel is not available, or there is no memory for
            its work space.
    """
    status = getattr(_library(), function)(packed)
    if status not in (0, BAD_CALL):
        raise RuntimeError(
            f'{function} of {LIBRARY_NAME} found no memory for its work space '
            f'(status {status}).'
        )
    return status


def _run(
    function: str,
    inputs: tuple[Tensor | None, ...],
    delta_softplus: bool,
    states: Tensor | None,
    dy: Tensor | None,
    outputs: tuple[Tensor | None, ...],
) -> None:
    """Pack one ``scan_call`` and run it."""
    u, delta, A, B, C, D, delta_bias = inputs
    if u.dtype == torch.float64:
        function += '_double'
    # The names keep the copies alive during the call.
    u, delta, B, C = (unit_time_stride(x) for x in (u, delta, B, C))
    A = A.contiguous()
    D, delta_bias = contiguous(D), contiguous(delta_bias)
    dy_strides = (0, 0)
    if dy is not None:
        dy = unit_time_stride(dy)
        dy_strides = dy.stride()[:2]
    y, *gradients = outputs
    batch, dim, length = u.shape
    groups, d_state = B.shape[1:3]
    packed = _CALL.pack(
        *map(
            _address,
            (u, delta, A, B, C, D, delta_bias, states, y, dy, *gradients),
        ),
        *u.stride()[:2],
        *delta.stride()[:2],
        d_state,
        *B.stride()[:3],
        *C.stride()[:3],
        *dy_strides,
        batch,
        dim,
        length,
        d_state,
        groups,
        delta_softplus,
        torch.get_num_threads(),
    )
    if call(function, packed) == BAD_CALL:
        raise RuntimeError(
            f'{function} of {LIBRARY_NAME}: sizes out of range for u of shape '
            f'{tuple(u.shape)} and B of shape {tuple(B.shape)}.'
        )


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


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
        library.scan_probe_exp.argtypes = (ctypes.c_int64, ctypes.c_int64)
        library.scan_probe_exp.restype = ctypes.c_int64
        fits = (
            library.scan_interface_version() == _INTERFACE_VERSION
            and library.scan_call_size() == _CALL.size
            and library.scan_saved_every() == _SAVED_EVERY
            and library.gated_norm_task_rows() == GATE_ROWS
        )
    except (OSError, AttributeError) as error:
        return None, f'the C kernel does not load ({error}); {_REMEDY}'
    if not fits:
        return None, f'the C kernel is from another version; {_REMEDY}'
    for name in (
        'scan_forward',
        'scan_backward',
        'scan_paths',
        'scan_paths_backward',
        'gated_norm',
        'gated_norm_backward',
        'mean_gate',
        'mean_gate_backward',
        'upsample_concat',
        'upsample_concat_backward',
        'batch_norm_relu',
        'batch_norm_relu_backward',
    ):
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
    used = library.scan_set_level(level)
    if name is not None and used != level:
        raise ValueError(
            f'instruction set: this processor has none above '
            f'{INSTRUCTION_SETS[used]!r}, got {name!r}. Leave '
            f'{ISA_VARIABLE} unset for the best one.'
        )
