"""Orders in which a scan visits the pixels of a map, and their inverses."""

import torch
from torch import Tensor

from .constants import TensorCache, concrete_device

SNAKE_ORDERS = ('snake_h', 'snake_v', 'snake_d', 'snake_a')
SCAN_ORDERS = ('raster', 'raster_t', 'cross', *SNAKE_ORDERS)

_CACHE = TensorCache()


def scan_order(
    name: str,
    height: int,
    width: int,
    device: torch.device | str | None = None,
) -> Tensor:
    """Pixel index ``h * width + w`` of each token of a scan.

    ``seq = x.flatten(2)[..., order]`` turns a map into a sequence, and
    :func:`inverse_order` turns it back.

    ``raster``
        Row after row, each from left to right.
    ``raster_t``
        Column after column, each from top to bottom.
    ``cross``
        VMamba's four directions: raster, raster_t, and both backwards (Liu et
        al., "VMamba", arXiv:2401.10166, SS2D).
    ``snake_h``, ``snake_v``
        Row after row, or column after column, every second one backwards.
    ``snake_d``
        Along the main diagonals (``w - h`` constant), from the top right
        corner to the bottom left one, every second one backwards.
    ``snake_a``
        Along the anti-diagonals (``h + w`` constant), from the top left
        corner to the bottom right one, every second one backwards.

    Consecutive tokens of a snake are neighbours: diagonal ones within a
    diagonal, else pixels that share an edge.

    Args:
        name: One of ``SCAN_ORDERS``.
        height: Height of the map in pixels.
        width: Width of the map in pixels.
        device: Where the indices are needed; None is the CPU.

    Returns:
        Indices, int64, (L,) with L = height * width, or (4, L) for 'cross'.
        The tensor is shared between calls: do not write to it.

    Raises:
        ValueError: The name is unknown or the size is not positive.
    """
    _check(name, height, width)
    device = concrete_device(device)
    return _CACHE.get(
        (name, height, width, device),
        lambda: _build_order(name, height, width, device),
    )


def inverse_scan_order(
    name: str,
    height: int,
    width: int,
    device: torch.device | str | None = None,
) -> Tensor:
    """Inverse of :func:`scan_order`, computed once per size and device.

    Args:
        name: As in :func:`scan_order`.
        height: As in :func:`scan_order`.
        width: As in :func:`scan_order`.
        device: As in :func:`scan_order`.

    Returns:
        Position in the sequence of each pixel; shaped like the order.
    """
    _check(name, height, width)
    device = concrete_device(device)
    return _CACHE.get(
        ('inverse', name, height, width, device),
        lambda: inverse_order(_build_order(name, height, width, device)),
    )


def inverse_order(order: Tensor) -> Tensor:
    """Inverse of a permutation along the last dimension.

    With ``seq = x[..., order]``, ``seq[..., inverse_order(order)]`` is x.

    Args:
        order: Permutations of 0..L-1, int64, (..., L).

    Returns:
        Their inverses, (..., L).
    """
    positions = torch.arange(order.shape[-1], device=order.device)
    return torch.empty_like(order).scatter_(
        -1, order, positions.expand_as(order)
    )


def _check(name: str, height: int, width: int) -> None:
    if name not in SCAN_ORDERS:
        raise ValueError(f'name: expected one of {SCAN_ORDERS}, got {name!r}.')
    if height < 1 or width < 1:
        raise ValueError(
            f'height, width: expected at least 1, got {height} and {width}.'
        )


def _build_order(
    name: str, height: int, width: int, device: torch.device
) -> Tensor:
    # On the device from the start: a compiled graph, which keeps no tensor
    # of the cache, needs no copy at each call.
    grid = torch.arange(height * width, device=device).view(height, width)
    if name == 'raster':
        return grid.flatten()
    if name == 'raster_t':
        return grid.t().flatten()
    if name == 'cross':
        forth = torch.stack([grid.flatten(), grid.t().flatten()])
        return torch.cat([forth, forth.flip(-1)])
    if name == 'snake_h':
        return _snake_rows(grid)
    if name == 'snake_v':
        return _snake_rows(grid.t())
    if name == 'snake_a':
        return _snake_anti_diagonals(grid)
    return _snake_anti_diagonals(grid.flip(1))


def _snake_rows(grid: Tensor) -> Tensor:
    """Read a grid row by row, every second row backwards."""
    rows = torch.arange(grid.shape[0], device=grid.device)[:, None]
    return torch.where(rows % 2 == 1, grid.flip(1), grid).flatten()


def _snake_anti_diagonals(grid: Tensor) -> Tensor:
    """Read a grid along its anti-diagonals, first up, then down, and so on."""
    height, width = grid.shape
    rows = torch.arange(height, device=grid.device)[:, None]
    columns = torch.arange(width, device=grid.device)[None, :]
    diagonal = rows + columns
    along = torch.where(diagonal % 2 == 0, columns, rows)
    rank = diagonal * max(height, width) + along
    return grid.flatten()[rank.flatten().argsort()]
