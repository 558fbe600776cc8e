"""Backend ``torch``: a chunked scan in plain PyTorch, on any device.

The sequence is processed in tiles, one after the other. A tile holds K chunks
of T steps: the T steps run one after the other, each for all K chunks at once,
first from a zero state to learn what every chunk adds, then again from the
true state at its border. Time is linear in the length L; memory beyond inputs
and outputs is that of one tile plus one state per tile border. Where a single
step is work enough for a CPU, a tile is one chunk and no step runs twice.

Only ``exp(dt A)`` and ``exp(A sum(dt))`` are ever formed, each with the sign
the recurrence itself has: nothing is divided and no inverse decay appears, so
strong decays underflow to zero instead of overflowing.

Names: E is the number of channels per group, D = G E.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Steps per chunk. Longer chunks keep more states in the backward, shorter
# ones spend more on carrying states between chunks.
CHUNK_STEPS = 16
# State elements per step: enough to hide the cost of a call into torch, few
# enough for a step's tensors to stay in the second-level cache of a CPU. A GPU
# needs more to be busy, and has no such cache to leave.
STEP_ELEMENTS = 1 << 18
GPU_STEP_ELEMENTS = 1 << 21
# Fewer chunks side by side make vectors too short for a CPU: for D = 256,
# N = 16 and a batch of 16 a lone chunk is three times as fast as four.
MIN_CHUNKS = 8


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
    steps, chunks = _tile_size(
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
    scan = _Scan(u, delta, A, B, C, delta_bias, delta_softplus)
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
        y_groups[..., start:stop] = _join_chunks(y_tile, stop - start)
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
    scan = _Scan(u, delta, A, B, C, delta_bias, delta_softplus)
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
        dy_tile = _split_chunks(scan.grouped(dy)[..., start:stop], tile.steps)
        if dD is not None:
            dD += torch.mul(dy_tile, tile.u).sum((0, 1, 4)).flatten()
        grads, carried = _tile_backward(tile, dy_tile, states[index], carried)
        parts = grads.u, grads.delta, grads.B, grads.C
        for whole, part in zip(wholes, parts, strict=True):
            whole[..., start:stop] = _join_chunks(part, stop - start)
        dA += grads.A
        if delta_softplus:
            raw = scan.raw_delta(start, stop)
            ddelta[..., start:stop].mul_(raw.sigmoid_())
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
    tile: '_Tile', dy: Tensor, border: Tensor, carried: Tensor
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
        dA.addcmul_(work, tile.delta[t].unsqueeze(-2))
        work.mul_(tile.A)
        torch.sum(work, -2, out=ddelta[t])
    if tile.chunks == 1:
        carried = r.squeeze(-1)
    ddelta.addcmul_(along_B, tile.u)
    du = along_B.mul_(tile.delta)
    return _TileGrads(u=du, delta=ddelta, A=dA.sum(-1), B=dB, C=dC), carried


class _Scan:
    """The inputs, with channels grouped, and the cut into tiles."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        delta_bias: Tensor | None,
        delta_softplus: bool,
    ) -> None:
        batch, dim, self.length = u.shape
        self.groups, d_state = B.shape[1:3]
        self.u, self.delta, self.B, self.C = u, delta, B, C
        self.delta_bias = delta_bias
        self.delta_softplus = delta_softplus
        # (1, G, E, N, 1): broadcasts over batch and chunks
        self.A = A.reshape(1, self.groups, dim // self.groups, d_state, 1)
        self.steps, self.chunks = _tile_size(
            width=batch * dim * d_state,
            length=self.length,
            device_type=u.device.type,
        )

    def grouped(self, x: Tensor) -> Tensor:
        """View (B, D, L) as (B, G, E, L)."""
        return x.unflatten(1, (self.groups, -1))

    def tiles(self) -> Iterator[tuple[int, int]]:
        """First step and step after the last of each tile."""
        size = self.steps * self.chunks
        for start in range(0, self.length, size):
            yield start, min(start + size, self.length)

    def raw_delta(self, start: int, stop: int) -> Tensor:
        """Steps of a tile before the softplus, a copy, (B, D, length)."""
        delta = self.delta[..., start:stop]
        if self.delta_bias is None:
            return delta.clone()
        return delta + self.delta_bias[:, None]

    def tile(self, start: int, stop: int) -> '_Tile':
        """Cut one tile out of the sequences."""
        delta = self.raw_delta(start, stop)
        if self.delta_softplus:
            delta = F.softplus(delta)
        return _Tile(
            delta=_split_chunks(self.grouped(delta), self.steps),
            u=_split_chunks(self.grouped(self.u)[..., start:stop], self.steps),
            A=self.A,
            B=_split_chunks(self.B[..., start:stop], self.steps),
            C=_split_chunks(self.C[..., start:stop], self.steps),
        )


class _Tile:
    """One tile in the layout of the computation: steps first, chunks last.

    Args:
        delta: Steps after bias and softplus, (T, B, G, E, K).
        u: Inputs, (T, B, G, E, K).
        A: (1, G, E, N, 1).
        B: (T, B, G, N, K).
        C: (T, B, G, N, K).
    """

    def __init__(
        self, delta: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor
    ) -> None:
        self.delta, self.u, self.A = delta, u, A
        self.B, self.C = B.unsqueeze(3), C.unsqueeze(3)
        self.drive = delta * u
        self.steps, self.chunks = u.shape[0], u.shape[-1]
        self.decay = torch.mul(delta.unsqueeze(-2), A).exp_()

    def advance(self, states: Tensor, t: int) -> None:
        """Take step t in place on states (B, G, E, N, K)."""
        states.mul_(self.decay[t])
        states.addcmul_(self.drive[t].unsqueeze(-2), self.B[t])

    def entry_states(self, border: Tensor) -> tuple[Tensor, Tensor]:
        """States before the first step of each chunk, and after the last.

        A lone chunk starts from the border state; the second value is then
        not computed (its caller has it after the last step).
        """
        if self.chunks == 1:
            return border.unsqueeze(-1).clone(), border
        added = torch.mul(self.drive[0].unsqueeze(-2), self.B[0])
        for t in range(1, self.steps):
            self.advance(added, t)
        return _carry(added, self._chunk_decay(), border)

    def exit_grads(self, dy: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """The mirror image of :meth:`entry_states` for the gradients."""
        if self.chunks == 1:
            return carried.unsqueeze(-1).clone(), carried
        added = torch.mul(dy[-1].unsqueeze(-2), self.C[-1])
        added.mul_(self.decay[-1])
        for t in reversed(range(self.steps - 1)):
            added.addcmul_(dy[t].unsqueeze(-2), self.C[t])
            added.mul_(self.decay[t])
        flipped, carried = _carry(
            added.flip(-1), self._chunk_decay().flip(-1), carried
        )
        return flipped.flip(-1), carried

    def all_states(self, border: Tensor) -> Tensor:
        """States before each step and after the last, (T + 1, ..., K)."""
        entry, _ = self.entry_states(border)
        states = entry.new_empty(self.steps + 1, *entry.shape)
        states[0] = entry
        for t in range(self.steps):
            torch.mul(states[t], self.decay[t], out=states[t + 1])
            states[t + 1].addcmul_(self.drive[t].unsqueeze(-2), self.B[t])
        return states

    def _chunk_decay(self) -> Tensor:
        """Product of the decays of each chunk, (B, G, E, N, K)."""
        return torch.mul(self.delta.sum(0).unsqueeze(-2), self.A).exp_()


def _tile_size(width: int, length: int, device_type: str) -> tuple[int, int]:
    """Steps T per chunk and chunks K per tile.

    Args:
        width: State elements of one step of one chunk, B D N.
        length: Number of steps L.
        device_type: On a GPU, where every call costs a launch, a tile has
            at least sqrt(L) steps: so many tiles, and calls, are the most.
    """
    steps = min(CHUNK_STEPS, length)
    if device_type == 'cpu':
        chunks = STEP_ELEMENTS // width
        if chunks < MIN_CHUNKS:
            chunks = 1
    else:
        chunks = max(1, GPU_STEP_ELEMENTS // width)
        # Not isqrt: sizes may be symbolic.
        while (steps * chunks) ** 2 < length:
            chunks *= 2
    return steps, min(chunks, -(-length // steps))


def _split_chunks(x: Tensor, steps: int) -> Tensor:
    """(..., length) to contiguous (steps, ..., chunks), zero-padded."""
    chunks = -(-x.shape[-1] // steps)
    x = F.pad(x, (0, chunks * steps - x.shape[-1]))
    return x.unflatten(-1, (chunks, steps)).movedim(-1, 0).contiguous()


def _join_chunks(x: Tensor, length: int) -> Tensor:
    """(steps, ..., chunks) back to (..., length)."""
    return x.movedim(0, -1).flatten(-2)[..., :length]


def _carry(
    added: Tensor, decay: Tensor, border: Tensor
) -> tuple[Tensor, Tensor]:
    """Chain chunks: what enters each, and what leaves the last.

    Args:
        added: State each chunk reaches from zero, (..., K).
        decay: Factor it applies to what enters it, (..., K).
        border: What enters the first chunk, (...).
    """
    entries = torch.empty_like(
        added.movedim(-1, 0), memory_format=torch.contiguous_format
    )
    for k, (added_k, decay_k) in enumerate(
        zip(added.unbind(-1), decay.unbind(-1), strict=True)
    ):
        entries[k] = border
        # A zero state stays zero even where growth (dt A > 0) overflows.
        kept = torch.where(border == 0, border, decay_k * border)
        border = added_k + kept
    return entries.movedim(0, -1).contiguous(), border
