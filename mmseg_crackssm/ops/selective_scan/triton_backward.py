"""Triton kernel of the selective scan's gradients."""

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
def gradient_kernel(
    dy,
    u,
    delta,
    A,
    B,
    C,
    D,
    bias,
    states,
    adjoints,
    du,
    ddelta,
    dA,
    dB,
    dC,
    dD,
    dbias,
    length_units,
    dim,
    groups,
    d_state,
    tiles,
    parts,
    part_blocks,
    dy_batch,
    dy_row,
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
    SOFTPLUS: tl.constexpr,
    UNIT: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Gradients; a program does one tile of some blocks of channels.

    With ``p_t = exp(dt_t A) h_{t-1}``, so that ``h_t = p_t + dt_t u_t B_t``,
    and ``r_t = dy_t C_t + exp(dt_{t+1} A) r_{t+1}`` the gradient of the state
    after step t, every gradient is a sum of ``dy_t h_t``, ``r_t dt_t u_t``,
    ``r_t B_t`` and ``r_t p_t``. A scan gives p, one in reverse gives r; none
    of the terms is the difference of two.

    Args:
        states: State that enters each tile, (B, tiles, D, N).
        adjoints: Gradient of the state that leaves each tile, decayed by the
            step that follows, (B, tiles, D, N).
        du: Result, contiguous, like ddelta.
        dA: Part of each tile, (B, tiles, D, N).
        dB: Part of each program, (B, G, parts, N, L), like dC.
        dD: Part of each tile, (B, tiles, D), like dbias.
        parts: Number of programs that share the channels of a group.
        part_blocks: Blocks of channels per program.
    """
    length = length_units * UNIT
    blocks = tl.cdiv(dim // groups, CHANNELS)
    program = tl.program_id(0)
    tile = program % tiles
    part = program // tiles % parts
    group = program // tiles // parts % groups
    batch = program // tiles // parts // groups

    B += row_offsets(batch, group, B_batch, B_group, UNIT)
    C += row_offsets(batch, group, C_batch, C_group, UNIT)
    part_row = (batch.to(tl.int64) * groups + group) * parts + part
    place = tl.arange(0, STEPS)
    times = tile * STEPS + place
    times_in = times < length
    previous_in = (place > 0) & times_in
    next_in = (place < STEPS - 1) & (times + 1 < length)
    first_block = part * part_blocks
    for block in range(first_block, min(first_block + part_blocks, blocks)):
        channels, rows_in = block_channels(group, block, dim, groups, CHANNELS)
        inside = rows_in[:, None] & times_in[None, :]
        dy_rows = row_offsets(batch, channels, dy_batch, dy_row, UNIT)
        u_rows = row_offsets(batch, channels, u_batch, u_row, UNIT)
        rows = row_offsets(batch, channels, delta_batch, delta_row, UNIT)
        raw = load_raw_steps(
            delta, bias, rows, channels, times - 1, rows_in, previous_in
        )
        drive_before = step_sizes(raw, rows_in, previous_in, SOFTPLUS)
        drive_before *= load_tile(u, u_rows, times - 1, rows_in, previous_in)
        raw = load_raw_steps(
            delta, bias, rows, channels, times + 1, rows_in, next_in
        )
        dt_next = step_sizes(raw, rows_in, next_in, SOFTPLUS)
        raw = load_raw_steps(
            delta, bias, rows, channels, times, rows_in, times_in
        )
        dt = step_sizes(raw, rows_in, times_in, SOFTPLUS)
        drive = dt * load_tile(u, u_rows, times, rows_in, times_in)
        dy_tile = load_tile(dy, dy_rows, times, rows_in, times_in)

        tile_rows = (batch.to(tl.int64) * tiles + tile) * dim + channels
        is_later = tl.full((STEPS,), block, tl.int32) > first_block
        along_B = tl.zeros((CHANNELS, STEPS), tl.float32)
        along_A = tl.zeros((CHANNELS, STEPS), tl.float32)
        for n in range(d_state):
            A_n = load_column(A, channels * d_state + n, rows_in)
            rate = A_n * HALF_LOG2E
            B_n = B + n * B_row * UNIT
            border = tile_rows * d_state + n
            entering = load_column(states, border, rows_in)
            before = drive_before * load_row(B_n, times - 1, previous_in)
            before = tl.where((place == 0)[None, :], entering[:, None], before)
            root = tl.exp2(dt * rate[:, None])
            _, kept = tl.associative_scan(
                (root, root * (root * before)), 1, compose
            )

            C_row_n = load_row(C + n * C_row * UNIT, times, times_in)
            leaving = load_column(adjoints, border, rows_in)
            added = dy_tile * C_row_n[None, :]
            added += tl.where(
                (place == STEPS - 1)[None, :], leaving[:, None], 0.0
            )
            root = tl.exp2(dt_next * rate[:, None])
            root = tl.where(next_in[None, :], root, 1.0)
            # NaN reaches the steps before also where the gradient is zero.
            added = tl.where(root == root, added, root)
            _, r = tl.associative_scan((root, added), 1, compose, reverse=True)

            B_row_n = load_row(B_n, times, times_in)
            state = kept + drive * B_row_n[None, :]
            row = (part_row * d_state + n) * length + times
            dB_row = tl.sum(r * drive, 0)
            dB_row += load_row(dB, row, times_in & is_later)
            dC_row = tl.sum(dy_tile * state, 0)
            dC_row += load_row(dC, row, times_in & is_later)
            tl.store(dB + row, dB_row, mask=times_in)
            tl.store(dC + row, dC_row, mask=times_in)
            along_B += r * B_row_n[None, :]
            # Beyond the end r is zero, but a state may not be finite.
            pull = tl.where(times_in[None, :], r * kept, 0.0)
            along_A += pull * A_n[:, None]
            tl.store(dA + border, tl.sum(pull * dt, 1), mask=rows_in)

        u_tile = load_tile(u, u_rows, times, rows_in, times_in)
        step_grad = u_tile * along_B + along_A
        if SOFTPLUS:
            # Not a sigmoid: beyond 20 softplus is the identity to torch.
            step_grad *= tl.where(raw > 20.0, 1.0, tl.sigmoid(raw))
        u_grad = dt * along_B
        if D is not None:
            u_grad += dy_tile * load_column(D, channels, rows_in)[:, None]
            tl.store(dD + tile_rows, tl.sum(dy_tile * u_tile, 1), mask=rows_in)
        if bias is not None:
            tl.store(dbias + tile_rows, tl.sum(step_grad, 1), mask=rows_in)
        places = (batch.to(tl.int64) * dim + channels) * length
        places = places[:, None] + times[None, :]
        tl.store(du + places, u_grad, mask=inside)
        tl.store(ddelta + places, step_grad, mask=inside)
        # All threads of the program read in the next round what some of them
        # have just written to dB and dC.
        tl.debug_barrier()
