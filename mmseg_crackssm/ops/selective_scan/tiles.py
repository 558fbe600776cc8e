"""How the ``torch`` backend cuts a sequence into tiles of chunks.

Names: E is the number of channels per group, D = G E; T the steps of a chunk,
K the chunks of a tile.
"""

from collections.abc import Iterator

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


class Scan:
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
        self.steps, self.chunks = tile_size(
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

    def tile(self, start: int, stop: int) -> 'Tile':
        """Cut one tile out of the sequences."""
        delta = self.raw_delta(start, stop)
        if self.delta_softplus:
            delta = F.softplus(delta)
        return Tile(
            delta=split_chunks(self.grouped(delta), self.steps),
            u=split_chunks(self.grouped(self.u)[..., start:stop], self.steps),
            A=self.A,
            B=split_chunks(self.B[..., start:stop], self.steps),
            C=split_chunks(self.C[..., start:stop], self.steps),
            length=stop - start,
        )


class Tile:
    """One tile in the layout of the computation: steps first, chunks last.

    Args:
        delta: Steps after bias and softplus, (T, B, G, E, K).
        u: Inputs, (T, B, G, E, K).
        A: (1, G, E, N, 1).
        B: (T, B, G, N, K).
        C: (T, B, G, N, K).
        length: Steps that are not padding.
    """

    def __init__(
        self,
        delta: Tensor,
        u: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        length: int,
    ) -> None:
        self.delta, self.u, self.A = delta, u, A
        self.B, self.C = B.unsqueeze(3), C.unsqueeze(3)
        self.drive = delta * u
        self.steps, self.chunks = u.shape[0], u.shape[-1]
        self.decay = torch.mul(delta.unsqueeze(-2), A).exp_()
        # Steps of the last chunk from here on are padding.
        self.first_padded = self.steps - (self.steps * self.chunks - length)
        if self.first_padded < self.steps:
            # 1 also where A is infinite, and 0 A therefore NaN.
            self.decay[self.first_padded :, ..., -1] = 1

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


def tile_size(width: int, length: int, device_type: str) -> tuple[int, int]:
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


def split_chunks(x: Tensor, steps: int) -> Tensor:
    """(..., length) to contiguous (steps, ..., chunks), zero-padded."""
    chunks = -(-x.shape[-1] // steps)
    x = F.pad(x, (0, chunks * steps - x.shape[-1]))
    return x.unflatten(-1, (chunks, steps)).movedim(-1, 0).contiguous()


def join_chunks(x: Tensor, length: int) -> Tensor:
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
