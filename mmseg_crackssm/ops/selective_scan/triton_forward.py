"""Triton kernel of the selective scan's output."""

import triton
import triton.language as tl

from .triton_common import (
    HALF_LOG2E,
    block_channels,
    compose,
    load_column,
    load_raw_steps,
    load_row,
    load_tile,
    row_offsets,
    step_sizes,
)


@triton.jit
def scan_kernel(
    u,
    delta,
    A,
    B,
    C,
    D,
    bias,
    states,
    y,
    length_units,
    dim,
    groups,
    d_state,
    tiles,
    u_batch,
    u_row,
    delta_batch,
    delta_row,
    B_batch,
    B_group,
    B_row,
    C_batch,
    C_group,
    C_row,
    SPLIT: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    UNIT: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Output of the scan, (B, D, L).

    Split, a program does one tile and finds its state in ``states``;
    otherwise it does all tiles of a block of channels, first to last, and
    writes the states on its way.

    Args:
        states: State that enters each tile, (B, tiles, D, N).
        y: Result, contiguous.
    """
    length = length_units * UNIT
    blocks = tl.cdiv(dim // groups, CHANNELS)
    program = tl.program_id(0)
    if SPLIT:
        first = program % tiles
        program = program // tiles
        stop = first + 1
    else:
        first = 0
        stop = tiles
    block = program % blocks
    group = program // blocks % groups
    batch = program // blocks // groups

    channels, rows_in = block_channels(group, block, dim, groups, CHANNELS)
    u_rows = row_offsets(batch, channels, u_batch, u_row, UNIT)
    delta_rows = row_offsets(batch, channels, delta_batch, delta_row, UNIT)
    y_rows = (batch.to(tl.int64) * dim + channels) * length
    B += row_offsets(batch, group, B_batch, B_group, UNIT)
    C += row_offsets(batch, group, C_batch, C_group, UNIT)
    place = tl.arange(0, STEPS)
    for tile in range(first, stop):
        times = tile * STEPS + place
        times_in = times < length
        u_tile = load_tile(u, u_rows, times, rows_in, times_in)
        raw = load_raw_steps(
            delta, bias, delta_rows, channels, times, rows_in, times_in
        )
        dt = step_sizes(raw, rows_in, times_in, SOFTPLUS)
        drive = dt * u_tile
        if D is not None:
            out = u_tile * load_column(D, channels, rows_in)[:, None]
        else:
            out = tl.zeros((CHANNELS, STEPS), tl.float32)
        states_rows = (batch.to(tl.int64) * tiles + tile) * dim + channels
        order = tl.full((CHANNELS,), tile, tl.int32)
        has_previous = rows_in & (order > 0)
        has_next = rows_in & (order + 1 < tiles)
        for n in range(d_state):
            rate = load_column(A, channels * d_state + n, rows_in) * HALF_LOG2E
            B_row_n = load_row(B + n * B_row * UNIT, times, times_in)
            C_row_n = load_row(C + n * C_row * UNIT, times, times_in)
            state_places = states + states_rows * d_state + n
            entering = load_column(state_places, 0, has_previous)
            root = tl.exp2(dt * rate[:, None])
            added = drive * B_row_n[None, :]
            entered = root * (root * entering[:, None])
            added += tl.where((place == 0)[None, :], entered, 0.0)
            _, state = tl.associative_scan((root, added), 1, compose)
            out += state * C_row_n[None, :]
            if not SPLIT:
                tl.store(state_places, entering, mask=rows_in & (order == 0))
                last = (place == STEPS - 1)[None, :]
                tl.store(
                    state_places + dim * d_state,
                    tl.sum(tl.where(last, state, 0.0), 1),
                    mask=has_next,
                )
        tl.store(
            y + y_rows[:, None] + times[None, :],
            out,
            mask=rows_in[:, None] & times_in[None, :],
        )
        if not SPLIT:
            # All threads of the program read in the next round what some of
            # them have just written to the states.
            tl.debug_barrier()
