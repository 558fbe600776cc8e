"""What the Triton kernels of both directions share.

A sequence is cut into tiles of STEPS steps, the channels of a group into
blocks of CHANNELS. A program works on one (CHANNELS, STEPS) tile and takes the
states n one after the other, all steps at once by an associative scan. What
enters each tile comes from :func:`summarise_kernel` and :func:`chain_kernel`.

A decay stands in the kernels as its square root, applied twice: the product of
the decays of many steps may leave float32's range where what it decays, or
makes grow, does not.

Names: a row is what has consecutive steps in consecutive places; its offset is
given in units of UNIT elements, which tells the compiler how rows are aligned.
"""

import triton
import triton.language as tl

# The square root of exp(x) is exp2(HALF_LOG2E x).
HALF_LOG2E = tl.constexpr(0.5 * 1.4426950408889634)
INFINITY = tl.constexpr(float('inf'))


@triton.jit
def compose(root_1, added_1, root_2, added_2):
    """Two steps ``x -> root^2 x + added``, one after the other, as one."""
    # A zero state stays zero even where growth (dt A > 0) overflows.
    root = tl.where(added_1 == 0.0, 0.0, root_2)
    return root_1 * root_2, root * (root * added_1) + added_2


@triton.jit
def decayed(root, x):
    """``root^2 x``, and 0 for a zero that meets an overflow of growth."""
    product = root * (root * x)
    return tl.where((x == 0.0) & (root == INFINITY), 0.0, product)


@triton.jit
def softplus(x):
    """As torch has it: the identity beyond 20."""
    z = tl.exp(x)
    total = 1.0 + z
    # The factor makes up for the rounding of the sum: this is log1p(z).
    log1p = tl.where(
        total == 1.0, z, tl.log(total) * tl.div_rn(z, total - 1.0)
    )
    return tl.where(x > 20.0, x, log1p)


@triton.jit
def block_channels(group, block, dim, groups, CHANNELS: tl.constexpr):
    """Channels of a block, and which of them belong to its group."""
    per_group = dim // groups
    within = block * CHANNELS + tl.arange(0, CHANNELS)
    return group * per_group + within, within < per_group


@triton.jit
def row_offsets(batch, channels, batch_stride, row_stride, UNIT: tl.constexpr):
    """Where the rows of some channels start; a single row likewise."""
    offsets = batch.to(tl.int64) * batch_stride + channels * row_stride
    return offsets * UNIT


@triton.jit
def load_tile(base, offsets, times, rows_in, times_in):
    """A (CHANNELS, STEPS) tile in float32, zero outside."""
    return tl.load(
        base + offsets[:, None] + times[None, :],
        mask=rows_in[:, None] & times_in[None, :],
        other=0.0,
    ).to(tl.float32)


@triton.jit
def load_row(base, times, times_in):
    """Steps of one row in float32, zero outside."""
    return tl.load(base + times, mask=times_in, other=0.0).to(tl.float32)


@triton.jit
def load_column(base, offsets, rows_in):
    """One number per channel in float32, zero outside."""
    return tl.load(base + offsets, mask=rows_in, other=0.0).to(tl.float32)


@triton.jit
def load_raw_steps(delta, bias, offsets, channels, times, rows_in, times_in):
    """Step sizes with their bias, before the softplus."""
    raw = load_tile(delta, offsets, times, rows_in, times_in)
    if bias is not None:
        raw += load_column(bias, channels, rows_in)[:, None]
    return raw


@triton.jit
def step_sizes(raw, rows_in, times_in, SOFTPLUS: tl.constexpr):
    """Step sizes dt, zero outside."""
    dt = softplus(raw) if SOFTPLUS else raw
    return tl.where(rows_in[:, None] & times_in[None, :], dt, 0.0)


@triton.jit
def summarise_kernel(
    signal,
    delta,
    A,
    weight,
    bias,
    added,
    spans,
    length_units,
    dim,
    groups,
    d_state,
    tiles,
    signal_batch,
    signal_row,
    delta_batch,
    delta_row,
    weight_batch,
    weight_group,
    weight_row,
    REVERSE: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    UNIT: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """What each tile adds to zero, and how long it is.

    Forward, the state after its last step, from ``signal`` u and ``weight``
    B; reversed, the gradient of the state before its first step, from dy and
    C. A tile's factor is ``exp(A span)``, with the span the sum of its dt.

    Args:
        added: Result, (B, tiles, D, N).
        spans: Result, (B, tiles, D).
    """
    length = length_units * UNIT
    blocks = tl.cdiv(dim // groups, CHANNELS)
    program = tl.program_id(0)
    tile = program % tiles
    block = program // tiles % blocks
    group = program // tiles // blocks % groups
    batch = program // tiles // blocks // groups

    channels, rows_in = block_channels(group, block, dim, groups, CHANNELS)
    place = tl.arange(0, STEPS)
    times = tile * STEPS + place
    times_in = times < length
    offsets = row_offsets(batch, channels, delta_batch, delta_row, UNIT)
    raw = load_raw_steps(
        delta, bias, offsets, channels, times, rows_in, times_in
    )
    dt = step_sizes(raw, rows_in, times_in, SOFTPLUS)
    x = load_tile(
        signal,
        row_offsets(batch, channels, signal_batch, signal_row, UNIT),
        times,
        rows_in,
        times_in,
    )
    if REVERSE:
        passed = tl.cumsum(dt, 1)
    else:
        x *= dt
        # Summed from the end and without the step itself: a difference of
        # sums would be wrong by the largest of them.
        next_in = (place < STEPS - 1) & (times + 1 < length)
        raw = load_raw_steps(
            delta, bias, offsets, channels, times + 1, rows_in, next_in
        )
        following = step_sizes(raw, rows_in, next_in, SOFTPLUS)
        passed = tl.cumsum(following, 1, reverse=True)

    first_of_tile = (batch.to(tl.int64) * tiles + tile) * dim
    tl.store(spans + first_of_tile + channels, tl.sum(dt, 1), mask=rows_in)
    weight += row_offsets(batch, group, weight_batch, weight_group, UNIT)
    for n in range(d_state):
        rate = load_column(A, channels * d_state + n, rows_in) * HALF_LOG2E
        row = load_row(weight + n * weight_row * UNIT, times, times_in)
        root = tl.exp2(passed * rate[:, None])
        if REVERSE:
            is_whole = times_in
        else:
            # Nothing follows the last step, and 0 A is NaN for infinite A.
            is_whole = next_in
        root = tl.where(is_whole[None, :], root, 1.0)
        total = tl.sum(decayed(root, x * row[None, :]), 1)
        place_of_n = (first_of_tile + channels) * d_state + n
        tl.store(added + place_of_n, total, mask=rows_in)


@triton.jit
def chain_kernel(
    added,
    spans,
    A,
    borders,
    dim,
    d_state,
    tiles,
    REVERSE: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILES: tl.constexpr,
):
    """What enters each tile, from what each tile adds.

    Reversed, the last tile comes first. What enters the first is zero.

    Args:
        added: See :func:`summarise_kernel`, like spans.
        borders: Result, (B, tiles, D, N).
    """
    width = dim * d_state
    programs = tl.cdiv(width, COLUMNS)
    column = tl.program_id(0) % programs * COLUMNS + tl.arange(0, COLUMNS)
    first_row = (tl.program_id(0) // programs).to(tl.int64) * tiles
    column_in = column < width
    channel = column // d_state
    rate = load_column(A, column, column_in) * HALF_LOG2E
    carried = tl.zeros((COLUMNS,), tl.float32)
    place = tl.arange(0, TILES)
    for start in range(0, tiles, TILES):
        order = start + place
        # The tile, and the one that follows it in this direction.
        tile = tiles - 1 - order if REVERSE else order
        following = tile - 1 if REVERSE else tile + 1
        inside = (order < tiles)[:, None] & column_in[None, :]
        row = first_row + tile[:, None]
        span = tl.load(spans + row * dim + channel, mask=inside, other=0.0)
        x = tl.load(added + row * width + column, mask=inside, other=0.0)
        root = tl.exp2(span * rate[None, :])
        entering = decayed(root, carried[None, :])
        x += tl.where((place == 0)[:, None], entering, 0.0)
        _, leaving = tl.associative_scan((root, x), 0, compose)
        tl.store(
            borders + (first_row + following[:, None]) * width + column,
            leaving,
            mask=inside & (order < tiles - 1)[:, None],
        )
        tl.store(
            borders + row * width + column,
            0.0,
            mask=inside & (order == 0)[:, None],
        )
        last = (place == TILES - 1)[:, None]
        carried = tl.sum(tl.where(last, leaving, 0.0), 0)
