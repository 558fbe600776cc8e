"""Backend ``triton``: kernels that are compiled at their first use.

No CUDA compiler is needed: Triton comes with the CUDA builds of torch and
brings its own. Inputs are read in their own types, states and sums are
float32. The sequence is cut into tiles of steps; where batch and channels
alone do not fill a GPU, all tiles run at once, after two small launches that
find the state at each border. The backward starts from these states and
recomputes those inside a tile. Sums have a fixed order: results repeat bit by
bit.

With ``TRITON_INTERPRET=1`` in the environment when the process starts, Triton
interprets the kernels on the CPU, slowly: for tests.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .backends import TRITON_IS_INTERPRETED
from .layout import contiguous, unit_time_stride

# Channels times steps of a tile, and what a warp does of it. The backward
# then needs 128 registers per thread, twice as many at twice the elements.
TILE_ELEMENTS = 1024
WARP_ELEMENTS = 128
MAX_CHANNELS = 16
MAX_STEPS = 128
# Programs that fill a large GPU.
ENOUGH_PROGRAMS = 1024
# States and tiles that one program of the chain handles at a time.
CHAIN_COLUMNS = 32
CHAIN_TILES = 16
# Alignments the kernels distinguish, in elements.
MAX_UNIT = 16

# One stage: a load must not move before the stores of an earlier round.
_COMPILER = dict(num_stages=1, enable_fp_fusion=True)
_MIN_CAPABILITY = (7, 0)
_REMEDY = (
    'the CUDA builds of torch bring it: see https://pytorch.org/get-started, '
    'or "pip install triton" beside such a build.'
)


@cache
def unavailable_reason() -> str | None:
    """None where the kernels can be compiled and run, else the remedy."""
    if not TRITON_IS_INTERPRETED and not torch.cuda.is_available():
        return 'it needs a CUDA device, and torch sees none.'
    try:
        import triton
    except ImportError as error:
        return f'Triton does not import ({error}); {_REMEDY}'
    if TRITON_IS_INTERPRETED:
        return None
    capability = torch.cuda.get_device_capability()
    if capability < _MIN_CAPABILITY:
        return (
            'it needs a device of compute capability '
            f'{".".join(map(str, _MIN_CAPABILITY))} or higher, got '
            f'{".".join(map(str, capability))}.'
        )
    try:
        triton.runtime.driver.active.get_current_target()
    # Whatever a compiler or a driver fails with.
    except Exception as error:
        return (
            f'Triton does not start ({error}); it compiles its launcher with '
            'gcc or clang against Python.h (Debian: apt-get install gcc '
            'python3-dev).'
        )
    return None


@dataclass(frozen=True)
class Tiling:
    """How a call is cut up.

    Attributes:
        channels: Channels of a block, a power of two.
        steps: Steps of a tile, a power of two.
        blocks: Blocks per group.
        tiles: Tiles per sequence.
    """

    channels: int
    steps: int
    blocks: int
    tiles: int

    @property
    def num_warps(self) -> int:
        """Warps per program."""
        return max(1, self.channels * self.steps // WARP_ELEMENTS)


def tiling(dim: int, length: int, groups: int) -> Tiling:
    """How a call is cut up; plain arithmetic, for symbolic sizes as well.

    Args:
        dim: Number of channels D.
        length: Number of steps L.
        groups: Number of groups G.
    """
    per_group = dim // groups
    channels = 1
    while channels < min(per_group, MAX_CHANNELS):
        channels *= 2
    steps = min(MAX_STEPS, TILE_ELEMENTS // channels)
    return Tiling(
        channels=channels,
        steps=steps,
        blocks=-(-per_group // channels),
        tiles=-(-length // steps),
    )


def states_shape(
    batch: int,
    dim: int,
    length: int,
    d_state: int,
    groups: int,
    device_type: str,
) -> tuple[int, ...]:
    """Shape of the states kept for the backward: one per tile.

    Args:
        batch: Batch size.
        dim: Number of channels D.
        length: Number of steps L.
        d_state: State size N.
        groups: Number of groups G.
        device_type: Type of the device; has no influence.

    Returns:
        (B, tiles, D, N).
    """
    return batch, tiling(dim, length, groups).tiles, dim, d_state


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
    """Run the scan; arguments and results as in :mod:`.chunked`.

    Inputs are float32, bfloat16 or float16 each, the output is of the type of
    u.
    """
    from .triton_forward import scan_kernel

    u, delta, B, C = map(unit_time_stride, (u, delta, B, C))
    A, D, delta_bias = map(contiguous, (A, D, delta_bias))
    batch, dim, length = u.shape
    groups, d_state = B.shape[1:3]
    cut = tiling(dim, length, groups)
    y = u.new_empty(u.shape)
    programs = batch * groups * cut.blocks
    split = cut.tiles > 1 and programs < ENOUGH_PROGRAMS
    with _on_device_of(u):
        if split:
            states = _borders(u, delta, A, B, delta_bias, delta_softplus)
        else:
            shape = (batch, cut.tiles, dim, d_state)
            states = u.new_empty(shape, dtype=torch.float32)
        unit = _unit(length, u, delta, B, C)
        scan_kernel[(programs * (cut.tiles if split else 1),)](
            u,
            delta,
            A,
            B,
            C,
            D,
            delta_bias,
            states,
            y,
            length // unit,
            dim,
            groups,
            d_state,
            cut.tiles,
            *_row_strides(unit, u, delta, B, C),
            SPLIT=split,
            SOFTPLUS=delta_softplus,
            **_constants(cut, unit),
        )
    return y, states if save_states else u.new_empty(0, dtype=torch.float32)


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
    """Gradients; arguments and results as in :mod:`.chunked`.

    Those of u and delta are of the inputs' types, the others float32.
    """
    from .triton_backward import gradient_kernel

    dy, u, delta, B, C = map(unit_time_stride, (dy, u, delta, B, C))
    A, D, delta_bias = map(contiguous, (A, D, delta_bias))
    batch, dim, length = u.shape
    groups, d_state = B.shape[1:3]
    cut = tiling(dim, length, groups)
    tiles = batch * groups * cut.tiles
    part_blocks = -(-cut.blocks // max(1, ENOUGH_PROGRAMS // tiles))
    parts = -(-cut.blocks // part_blocks)

    def empty(*shape: int) -> Tensor:
        return u.new_empty(shape, dtype=torch.float32)

    du, ddelta = u.new_empty(u.shape), delta.new_empty(u.shape)
    dA = empty(batch, cut.tiles, dim, d_state)
    dB, dC = (empty(batch, groups, parts, d_state, length) for _ in 'BC')
    dD, dbias = (
        None if x is None else empty(batch, cut.tiles, dim)
        for x in (D, delta_bias)
    )
    with _on_device_of(u):
        adjoints = _borders(
            dy, delta, A, C, delta_bias, delta_softplus, reverse=True
        )
        unit = _unit(length, dy, u, delta, B, C)
        gradient_kernel[(tiles * parts,)](
            dy,
            u,
            delta,
            A,
            B,
            C,
            D,
            delta_bias,
            states,
            adjoints,
            du,
            ddelta,
            dA,
            dB,
            dC,
            dD,
            dbias,
            length // unit,
            dim,
            groups,
            d_state,
            cut.tiles,
            parts,
            part_blocks,
            *_row_strides(unit, dy, u, delta, B, C),
            SOFTPLUS=delta_softplus,
            **_constants(cut, unit),
        )
    dA, dD, dbias = (
        None if x is None else x.sum((0, 1)) for x in (dA, dD, dbias)
    )
    return du, ddelta, dA, dB.sum(2), dC.sum(2), dD, dbias


def _borders(
    signal: Tensor,
    delta: Tensor,
    A: Tensor,
    weight: Tensor,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool = False,
) -> Tensor:
    """What enters each tile, (B, tiles, D, N).

    Args:
        signal: What drives the states: u, or dy for their gradients.
        delta: See :func:`forward`.
        A: See there.
        weight: B, or C for the gradients.
        delta_bias: See there.
        delta_softplus: See there.
        reverse: From the last tile to the first, for the gradients.
    """
    from .triton_common import chain_kernel, summarise_kernel

    batch, dim, length = signal.shape
    groups, d_state = weight.shape[1:3]
    cut = tiling(dim, length, groups)
    shape = (batch, cut.tiles, dim, d_state)
    added, borders = (
        signal.new_empty(shape, dtype=torch.float32) for _ in range(2)
    )
    spans = added.new_empty(shape[:3])
    unit = _unit(length, signal, delta, weight)
    summarise_kernel[(batch * groups * cut.blocks * cut.tiles,)](
        signal,
        delta,
        A,
        weight,
        delta_bias,
        added,
        spans,
        length // unit,
        dim,
        groups,
        d_state,
        cut.tiles,
        *_row_strides(unit, signal, delta, weight),
        REVERSE=reverse,
        SOFTPLUS=delta_softplus,
        **_constants(cut, unit),
    )
    chain_kernel[(batch * -(-dim * d_state // CHAIN_COLUMNS),)](
        added,
        spans,
        A,
        borders,
        dim,
        d_state,
        cut.tiles,
        REVERSE=reverse,
        COLUMNS=CHAIN_COLUMNS,
        TILES=CHAIN_TILES,
        num_warps=1,
        **_COMPILER,
    )
    return borders


def _constants(cut: Tiling, unit: int) -> dict[str, int | bool]:
    """What a kernel is compiled for."""
    return dict(
        UNIT=unit,
        CHANNELS=cut.channels,
        STEPS=cut.steps,
        num_warps=cut.num_warps,
        **_COMPILER,
    )


def _unit(length: int, *tensors: Tensor) -> int:
    """Power of two that divides the length and the strides of all rows."""
    strides = (stride for x in tensors for stride in x.stride()[:-1])
    return math.gcd(MAX_UNIT, length, *strides)


def _row_strides(unit: int, *tensors: Tensor) -> list[int]:
    """Strides of all dimensions but time, in units."""
    return [stride // unit for x in tensors for stride in x.stride()[:-1]]


def _on_device_of(x: Tensor) -> AbstractContextManager:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
