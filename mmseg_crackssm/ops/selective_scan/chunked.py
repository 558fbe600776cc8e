"""Backend ``torch``: a chunked scan in plain PyTorch, on any device.

The sequence is processed in tiles, one after the other. A tile holds K chunks
of T steps: the T steps run one after the other, each for all K chunks at once,
first from a zero state to learn what every chunk adds, then again from the
true state at its border. Time is linear in the length L; memory beyond inputs
and outputs is that of one tile plus one state per tile border. Where a single
step is work enough for a CPU, a tile is one chunk and no step runs twice.

Only ``exp(dt A)`` and ``exp(A sum(dt))`` are ever formed, each with the sign
the recurrence itself has: nothing is divided and no inverse decay appears, so
strong decays underflow to zero instead of overflowing. Where states grow, with
A > 0, the factor of a whole chunk may overflow although the states themselves,
driven late or read early, do not; loop and C kernel give numbers there.

Names: E is the number of channels per group, D = G E.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .tiles import Scan, Tile, join_chunks, split_chunks, tile_size


def states_shape(
    batch: int,
    dim: int,
    length: int,
    d_state: int,
    groups: int,
    device_type: str,
) -> tuple[int, ...]:
    """Shape of the states kept for the backward: one per tile border.

    Args:
        batch: Batch size.
        dim: Number of channels D.
        length: Number of steps L.
        d_state: State size N.
        groups: Number of groups G.
        device_type: Type of the inputs' device.

    Returns:
        (tiles, B, G, D / G, N).
    """
    steps, chunks = tile_size(
        width=batch * dim * d_state, length=length, device_type=device_type
    )
    tiles = -(-length // (steps * chunks))
    return tiles, batch, groups, dim // groups, d_state


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
    """Run the scan.

    Args:
        u: Input, (B, D, L).
        delta: Step sizes before bias and softplus, (B, D, L).
        A: (D, N).
        B: (B, G, N, L).
        C: (B, G, N, L).
        D: Skip weights, (D,).
        delta_bias: (D,).
        delta_softplus: Whether the steps pass a softplus.
        save_states: Whether the backward will need the border states.

    Returns:
        The output (B, D, L), and the border states of :func:`states_shape`
        (an empty tensor when not saved).
    """
    scan = Scan(u, delta, A, B, C, delta_bias, delta_softplus)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    y_groups = scan.grouped(y)
    state = u.new_zeros(u.shape[0], *scan.A.shape[1:4])
    borders = []
    for start, stop in scan.tiles():
        if save_states:
            borders.append(state)
        tile = scan.tile(start, stop)
        states, state = tile.entry_states(state)
        y_tile = torch.empty_like(tile.u)
        product = torch.empty_like(states)
        for t in range(tile.steps):
            tile.advance(states, t)
            torch.mul(states, tile.C[t], out=product)
            torch.sum(product, -2, out=y_tile[t])
        if tile.chunks == 1:
            state = states.squeeze(-1)
        y_groups[..., start:stop] = join_chunks(y_tile, stop - start)
    if D is not None:
        y.addcmul_(u, D[:, None])
    return y, torch.stack(borders) if save_states else u.new_empty(0)


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
    """Gradients of the scan, last tile first.

    With ``r_t`` the gradient of the state after step t (so that
    ``r_t = dy_t C_t + exp(dt_{t+1} A) r_{t+1}``), the inside of a tile is
    recomputed from its border state, and

    ``dC_t = dy_t h_t``, ``dB_t = r_t dt_t u_t``,
    ``du_t = dt_t <r_t, B_t>``,
    ``ddt_t = u_t <r_t, B_t> + <r_t exp(dt_t A) h_{t-1}, A>``,
    ``dA = sum_t dt_t r_t exp(dt_t A) h_{t-1}``.

    Args:
        dy: Gradient of the output, (B, D, L).
        u: As in :func:`forward`, like the arguments up to the last.
        delta, A, B, C, D, delta_bias, delta_softplus: See there.
        states: Border states that :func:`forward` saved.

    Returns:
        Gradients of u, delta, A, B, C, D and delta_bias; None for an absent
        D or delta_bias.
    """
    scan = Scan(u, delta, A, B, C, delta_bias, delta_softplus)
    du, ddelta, dB, dC = (
        torch.empty_like(x, memory_format=torch.contiguous_format)
        for x in (u, delta, B, C)
    )
    wholes = scan.grouped(du), scan.grouped(ddelta), dB, dC
    dA = torch.zeros_like(states[0])
    dD = None if D is None else torch.zeros_like(D)
    carried = torch.zeros_like(states[0])
    for index, (start, stop) in reversed(list(enumerate(scan.tiles()))):
        tile = scan.tile(start, stop)
        dy_tile = split_chunks(scan.grouped(dy)[..., start:stop], tile.steps)
        if dD is not None:
            dD += torch.mul(dy_tile, tile.u).sum((0, 1, 4)).flatten()
        grads, carried = _tile_backward(tile, dy_tile, states[index], carried)
        parts = grads.u, grads.delta, grads.B, grads.C
        for whole, part in zip(wholes, parts, strict=True):
            whole[..., start:stop] = join_chunks(part, stop - start)
        dA += grads.A
        if delta_softplus:
            raw = scan.raw_delta(start, stop)
            part = ddelta[..., start:stop]
            # Not a sigmoid: beyond 20 softplus is the identity to torch.
            part.copy_(torch.ops.aten.softplus_backward(part, raw, 1, 20))
    if D is not None:
        du.addcmul_(dy, D[:, None])
    dbias = None if delta_bias is None else ddelta.sum((0, 2))
    return du, ddelta, dA.sum(0).flatten(0, 1), dB, dC, dD, dbias


@dataclass
class _TileGrads:
    """Gradients of one tile in its own layout; A is (B, G, E, N)."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor


def _tile_backward(
    tile: 'Tile', dy: Tensor, border: Tensor, carried: Tensor
) -> tuple[_TileGrads, Tensor]:
    """Gradients of one tile and the gradient that enters the tile before.

    Args:
        tile: The tile.
        dy: Gradient of its outputs, (T, B, G, E, K).
        border: State that enters the tile, (B, G, E, N).
        carried: Gradient of the state that leaves it, (B, G, E, N), already
            multiplied by the decay of the step that follows.
    """
    states = tile.all_states(border)
    r, carried = tile.exit_grads(dy, carried)
    along_B = torch.empty_like(tile.u)
    ddelta = torch.empty_like(tile.u)
    dB = torch.empty_like(tile.B).squeeze(3)
    dC = torch.empty_like(dB)
    dA = torch.zeros_like(r)
    work = torch.empty_like(r)
    for t in reversed(range(tile.steps)):
        dy_t = dy[t].unsqueeze(-2)
        torch.mul(states[t + 1], dy_t, out=work)
        torch.sum(work, 2, out=dC[t])
        r.addcmul_(dy_t, tile.C[t])
        torch.mul(r, tile.drive[t].unsqueeze(-2), out=work)
        torch.sum(work, 2, out=dB[t])
        torch.mul(r, tile.B[t], out=work)
        torch.sum(work, -2, out=along_B[t])
        r.mul_(tile.decay[t])
        torch.mul(r, states[t], out=work)
        if t >= tile.first_padded:
            # Not NaN where the last state is not finite.
            work[..., -1] = 0
        dA.addcmul_(work, tile.delta[t].unsqueeze(-2))
        work.mul_(tile.A)
        torch.sum(work, -2, out=ddelta[t])
    if tile.chunks == 1:
        carried = r.squeeze(-1)
    ddelta.addcmul_(along_B, tile.u)
    du = along_B.mul_(tile.delta)
    return _TileGrads(u=du, delta=ddelta, A=dA.sum(-1), B=dB, C=dC), carried
