"""Reordering of token sequences."""

import numpy as np
import torch
from torch import Tensor

from .registration import Operator, register_operators

# Up to here NumPy's sort on one thread is faster than torch's on all.
_MAX_THREADS = 4


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Read tokens in another order: ``out[..., i] = x[..., index[i]]``.

    Args:
        x: Sequences, (B, C, L), or (B, K, C, L) for K orders at once; with
            (B, 1, C, L) all orders read the same sequence.
        index: Permutations of 0..L-1, int64: (L,) or (B, L) for three
            dimensions of x, (L,), (K, L) or (B, K, L) for four.

    Returns:
        Reordered sequences, (B, C, L) or (B, K, C, L).

    Raises:
        ValueError: The shapes of x and index do not go together.
    """
    x, index = _align(x, index)
    return x.gather(-1, index)


def scatter_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Undo :func:`gather_tokens`: ``out[..., index[i]] = x[..., i]``.

    Args:
        x: Sequences, as in :func:`gather_tokens`.
        index: The permutations they were gathered with.

    Returns:
        Sequences in the order they had, (B, C, L) or (B, K, C, L).

    Raises:
        ValueError: The shapes of x and index do not go together.
    """
    x, index = _align(x, index)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return out.scatter(-1, index, x)


def intensity_order(key: Tensor) -> Tensor:
    """Order that visits tokens from the strongest key to the weakest.

    The sort is stable: tokens with equal keys keep their order. It carries no
    gradient to the key (CrackSSM, adaptive token reordering).

    Args:
        key: Intensities, (..., L).

    Returns:
        The order, int64, (..., L); :func:`inverse_order` turns it back.
    """
    key = key.detach()
    if _sorts_integers(key):
        return torch.ops.crackssm.intensity_argsort(key)
    return torch.argsort(key, dim=-1, descending=True, stable=True)


def _sorts_integers(key: Tensor) -> bool:
    """Whether :func:`_intensity_argsort` is there, and faster.

    A traced model holds torch's operator. NumPy sorts on one thread, but
    some four times as fast as torch does on one.
    """
    return (
        not torch.compiler.is_compiling()
        and key.device.type == 'cpu'
        and key.dtype == torch.float32
        and torch.get_num_threads() <= _MAX_THREADS
    )


def _intensity_argsort(key: Tensor) -> Tensor:
    """The order of float32 keys, by a sort of integers.

    The bits of a float32, read as an integer, increase with it, those of
    negative numbers the other way. With the position below them no two
    numbers are equal: NumPy's vectorised sort, which is not stable, serves.
    """
    if key.isnan().any():
        return torch.argsort(key, dim=-1, descending=True, stable=True)
    # Plus zero, so that -0 and 0 are equal.
    bits = (key.contiguous() + 0.0).numpy().view(np.int32)
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    tokens = (~ascending).astype(np.int64)
    tokens <<= 32
    tokens |= np.arange(key.shape[-1])
    tokens.sort(axis=-1)
    tokens &= 0xFFFFFFFF
    return torch.from_numpy(tokens)


# An operator, so that profilers see what it takes.
_LIBRARY = register_operators(
    {
        'intensity_argsort': Operator(
            schema='(Tensor key) -> Tensor',
            kernel=_intensity_argsort,
            fake=lambda key: key.new_empty(key.shape, dtype=torch.int64),
        )
    }
)


def _align(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Expand both, without a copy, to the shape of the result."""
    length = x.shape[-1]
    if x.dim() not in (3, 4):
        raise ValueError(
            f'x: expected (B, C, L) or (B, K, C, L), got {tuple(x.shape)}.'
        )
    leading = x.shape[:-2]
    if x.dim() == 4 and x.shape[1] == 1 and index.dim() > 1:
        leading = (x.shape[0], index.shape[-2])
    is_suffix = index.shape[:-1] == leading[len(leading) + 1 - index.dim() :]
    if not 1 <= index.dim() <= x.dim() - 1 or not is_suffix:
        raise ValueError(
            f'index: expected (L,), (B, L) with x (B, C, L), or (K, L) or '
            f'(B, K, L) with x (B, K, C, L), got {tuple(index.shape)} with x '
            f'{tuple(x.shape)}.'
        )
    if index.shape[-1] != length:
        raise ValueError(
            f'index: expected the length of x, {length}, got '
            f'{index.shape[-1]}.'
        )
    shape = (*leading, x.shape[-2], length)
    return x.expand(shape), index.unsqueeze(-2).expand(shape)
