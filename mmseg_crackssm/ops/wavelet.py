"""Two-dimensional discrete wavelet transform."""

from functools import cache

import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import TensorCache

DWT_MODES = (
    'symmetric',
    'reflect',
    'periodic',
    'periodization',
    'constant',
    'zero',
)

# Of images, not of feature maps: the convolution of all channels with all
# grows with their square.
_DENSE_CHANNELS = 4
_CACHE = TensorCache()


def dwt2(
    x: Tensor, wavelet: str = 'haar', mode: str = 'symmetric'
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One level of the 2-D DWT, equal to ``pywt.dwt2``.

    Args:
        x: Maps, (B, C, H, W), any size.
        wavelet: Name of a discrete wavelet of PyWavelets.
        mode: How the map continues beyond its border, one of ``DWT_MODES``,
            with PyWavelets' meaning.

    Returns:
        LL, LH, HL and HH, each (B, C, H', W') in the type of ``x``, with
        H' = floor((H + F - 1) / 2) for filters of F taps (Haar:
        ceil(H / 2)), or ceil(H / 2) with 'periodization'. In PyWavelets'
        order ``cA, (cH, cV, cD)``: LL is low-pass along both axes, LH is
        low-pass along the width and high-pass along the height (horizontal
        edges), HL the reverse (vertical edges), HH high-pass along both.

    Raises:
        ValueError: x is no non-empty floating-point (B, C, H, W), too small
            for 'reflect', or the wavelet or the mode is unknown.
    """
    bands = _transform(x, wavelet, mode, first_band=0)
    ll, lh, hl, hh = bands.chunk(4, dim=1)
    return ll, lh, hl, hh


def high_bands(
    x: Tensor, wavelet: str = 'haar', mode: str = 'symmetric'
) -> Tensor:
    """LH, HL and HH of :func:`dwt2`, one after the other.

    Args:
        x: As in :func:`dwt2`.
        wavelet: See there.
        mode: See there.

    Returns:
        (B, 3 * C, H', W').

    Raises:
        ValueError: As there.
    """
    return _transform(x, wavelet, mode, first_band=1)


def _transform(x: Tensor, wavelet: str, mode: str, first_band: int) -> Tensor:
    """The bands from ``first_band`` on, as (B, bands * C, H', W')."""
    if x.dim() != 4 or not x.is_floating_point() or 0 in x.shape[-2:]:
        raise ValueError(
            f'x: expected a non-empty floating-point tensor (B, C, H, W), got '
            f'{x.dtype} {tuple(x.shape)}.'
        )
    if mode not in DWT_MODES:
        raise ValueError(f'mode: expected one of {DWT_MODES}, got {mode!r}.')
    if mode == 'reflect' and 1 in x.shape[-2:]:
        raise ValueError(
            "x: mode 'reflect' expects at least 2 pixels along both axes, got "
            f'{tuple(x.shape)}.'
        )
    bank = filter_bank(wavelet)
    # Sums of up to 76 products: half precision would lose the details.
    precise = x if x.dtype == torch.float64 else x.float()
    if (
        len(bank[0]) == 2
        and x.device.type == 'cpu'
        and 0 < x.shape[1] <= _DENSE_CHANNELS
        and x.shape[0]
    ):
        bands = _transform_blocks(precise, bank, mode, first_band)
    else:
        low, high = _analyse(precise, bank=bank, mode=mode, dim=-1)
        four = (
            *_analyse(low, bank=bank, mode=mode, dim=-2),
            *_analyse(high, bank=bank, mode=mode, dim=-2),
        )
        bands = torch.cat(four[first_band:], dim=1)
    return bands.to(x.dtype)


@torch.compiler.assume_constant_result
def filter_bank(wavelet: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Low-pass and high-pass decomposition filters of a wavelet.

    Args:
        wavelet: Name of a discrete wavelet of PyWavelets.

    Raises:
        ValueError: There is no discrete wavelet of this name.
    """
    return _load_bank(wavelet)


@cache
def _load_bank(wavelet: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if wavelet not in pywt.wavelist(kind='discrete'):
        raise ValueError(
            "wavelet: expected a name in pywt.wavelist(kind='discrete'), such "
            f"as 'haar', 'db2' or 'sym4', got {wavelet!r}."
        )
    bank = pywt.Wavelet(wavelet)
    return tuple(bank.dec_lo), tuple(bank.dec_hi)


def _transform_blocks(
    x: Tensor,
    bank: tuple[tuple[float, ...], tuple[float, ...]],
    mode: str,
    first_band: int,
) -> Tensor:
    """The bands by filters of two taps, from blocks of 2×2 pixels.

    One convolution, which takes two thirds of the time of slices in two
    passes. Only for the CPU: see :func:`_analyse`. A number that is not
    finite reaches the bands of all channels.
    """
    for dim in (-1, -2):
        x = _extend(x, taps=2, mode=mode, dim=dim)
    channels = x.shape[1]
    kernel = _CACHE.get(
        (bank, channels, x.dtype), lambda: _block_kernel(bank, channels, x)
    )
    with torch.autocast('cpu', enabled=False):
        return F.conv2d(x, kernel[first_band * channels :], stride=2)


def _block_kernel(
    bank: tuple[tuple[float, ...], tuple[float, ...]],
    channels: int,
    like: Tensor,
) -> Tensor:
    """Kernel (4 * channels, channels, 2, 2): band by band, each channel."""
    low, high = (like.new_tensor(weights).flip(0) for weights in bank)
    # Along the height, then along the width; LL, LH, HL, HH.
    pairs = ((low, low), (high, low), (low, high), (high, high))
    blocks = torch.stack([torch.outer(*pair) for pair in pairs])
    same = torch.eye(channels, dtype=like.dtype, device=like.device)
    return torch.einsum('bhw,cd->bcdhw', blocks, same).flatten(0, 1)


def _analyse(
    x: Tensor,
    bank: tuple[tuple[float, ...], tuple[float, ...]],
    mode: str,
    dim: int,
) -> tuple[Tensor, Tensor]:
    """Filter along one axis and keep every second value.

    Shifted slices instead of a convolution: exact in float32 on every device,
    where convolutions may use TF32 or, under autocast, half precision.
    """
    taps = len(bank[0])
    extended = _extend(x, taps=taps, mode=mode, dim=dim).movedim(dim, -1)
    count = (extended.shape[-1] - taps) // 2 + 1
    shifted = [
        extended[..., start : start + 2 * count - 1 : 2]
        for start in range(taps)
    ]
    low, high = (_weighted_sum(shifted, weights[::-1]) for weights in bank)
    return low.movedim(-1, dim), high.movedim(-1, dim)


def _weighted_sum(terms: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    total = terms[0] * weights[0]
    for term, weight in zip(terms[1:], weights[1:], strict=True):
        total = torch.add(total, term, alpha=weight)
    return total


def _extend(x: Tensor, taps: int, mode: str, dim: int) -> Tensor:
    """Continue x on both sides so that the filters fit everywhere."""
    length = x.shape[dim]
    if mode == 'periodization':
        # An odd length repeats its last value first.
        before = taps // 2 - 1
        after = taps // 2 - 1 + length % 2
    else:
        before = taps - 2
        after = 2 * ((length + taps - 1) // 2) - length
    if before == after == 0:
        return x
    if mode == 'zero':
        pad = (before, after) if dim == -1 else (0, 0, before, after)
        return F.pad(x, pad)
    index = _CACHE.get(
        (length, before, after, mode, x.device),
        lambda: torch.tensor(
            [
                _source(position, length, mode)
                for position in range(-before, length + after)
            ],
            device=x.device,
        ),
    )
    return x.index_select(dim, index)


def _source(position: int, length: int, mode: str) -> int:
    """Where the value at a position, maybe outside, comes from."""
    if mode == 'constant':
        return min(max(position, 0), length - 1)
    if mode == 'periodic':
        return position % length
    if mode == 'periodization':
        return min(position % (length + length % 2), length - 1)
    # Mirror images: with the border value twice, or once.
    if mode == 'symmetric':
        position %= 2 * length
        return min(position, 2 * length - 1 - position)
    period = 2 * (length - 1)
    position %= period
    return min(position, period - position)
