"""Sampling of a map at a learned offset from each pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import TensorCache

_CACHE = TensorCache()


def adaptive_sample(x: Tensor, offset: Tensor) -> Tensor:
    """Read a map beside each pixel, each group of channels elsewhere.

    Group g of the result at (h, w) is group g of ``x`` at
    (h + dy, w + dx), bilinearly between the four pixels around that point;
    outside the map all is zero (Dynamic Adaptive Scan, DAMamba,
    arXiv:2502.12627; DCNv3 with a 1x1 kernel and no mask).

    It is one call of ``F.grid_sample`` on the groups folded into the batch,
    whose coordinates come from the offsets by one multiply-add. On the CPU
    that was faster than reading rows of channels-last memory
    (``tools/analysis/bench_sample.py``). Beyond its result it needs the
    coordinates, 2 numbers per pixel and group.

    Args:
        x: Map (B, C, H, W), its C channels group after group.
        offset: In pixels of the map, (B, 2 * G, H, W): dx and dy of the
            first group, of the second, ... G divides C.

    Returns:
        (B, C, H, W), in the dtype of ``x`` but at least float32, in which
        the coordinates are computed, whatever autocast says. On the CPU NaN
        where an offset is NaN or infinite.

    Raises:
        ValueError: If the shapes do not fit together or a map is empty.
    """
    _check(x, offset)
    batch, channels, height, width = x.shape
    folded = batch * (offset.shape[1] // 2)
    dtype = torch.promote_types(x.dtype, torch.float32)
    centers, pixel = _grid(height, width, dtype=dtype, device=x.device)
    # Two planes, each added up along its rows; grid_sample reads any strides.
    offset = offset.contiguous().view(folded, 2, height, width)
    grid = torch.addcmul(centers, offset.to(dtype), pixel)
    # Planes again: from channels-last memory its backward is slower.
    planes = x.to(dtype).contiguous().view(folded, -1, height, width)
    sampled = F.grid_sample(
        planes,
        grid.permute(0, 2, 3, 1),
        mode='bilinear',
        padding_mode='zeros',
        # The other convention divides by W - 1, which may be zero.
        align_corners=False,
    )
    return sampled.view(batch, channels, height, width)


def _check(x: Tensor, offset: Tensor) -> None:
    if (
        x.dim() != 4
        or offset.dim() != 4
        or x.shape[0] != offset.shape[0]
        or x.shape[2:] != offset.shape[2:]
    ):
        raise ValueError(
            'expected a map (B, C, H, W) and offsets (B, 2 * G, H, W) of its '
            f'size, got {tuple(x.shape)} and {tuple(offset.shape)}.'
        )
    if 0 in x.shape[1:]:
        raise ValueError(f'expected a map of pixels, got {tuple(x.shape)}.')
    groups, odd = divmod(offset.shape[1], 2)
    if odd or groups == 0 or x.shape[1] % groups:
        raise ValueError(
            'expected offsets with dx and dy for each of G groups, where G '
            f'divides the {x.shape[1]} channels of the map, got '
            f'{offset.shape[1]} channels of offsets.'
        )


def _grid(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Centres of the pixels, (2, H, W), and the size of one, (2, 1, 1).

    As ``grid_sample`` measures: the map reaches from -1 to 1.
    """

    def build() -> Tensor:
        axes = [
            (2 * torch.arange(length, dtype=torch.float64) + 1) / length - 1
            for length in (width, height)
        ]
        centers = torch.stack(torch.meshgrid(*axes, indexing='xy'))
        return centers.to(device=device, dtype=dtype)

    def build_size() -> Tensor:
        size = torch.tensor([2 / width, 2 / height], dtype=torch.float64)
        return size.view(2, 1, 1).to(device=device, dtype=dtype)

    key = (height, width, dtype, device)
    return (
        _CACHE.get(('centers', *key), build),
        _CACHE.get(('size', *key), build_size),
    )
