"""How far apart neighbouring crack tokens are in a scanned sequence.

A scan carries what it has read along the sequence: two tokens of a crack
that touch in the image but are far apart in the sequence hardly see one
another. CrackSSM sorts tokens by crack direction to bring them together; the
mean distance in sequence position says how far that goes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prettytable import PrettyTable

from ..ops.scan_order import SNAKE_ORDERS
from .scan_capture import Frame, LevelScan, fixed_orders


class Distance(NamedTuple):
    """A mean over pairs of neighbouring crack tokens.

    Attributes:
        steps: Distance in sequence position; 1 is next to each other.
        share: The same over the length of the sequence.
    """

    steps: float
    share: float


class LevelDistances(NamedTuple):
    """Distances at one level, over all images.

    Attributes:
        tokens: Number of crack tokens.
        pairs: Number of pairs of crack tokens that are 8-neighbours.
        means: Mean over these by name of the order; empty without pairs.
    """

    tokens: int
    pairs: int
    means: dict[str, Distance]


def crack_tokens(
    label: NDArray, grid: tuple[int, int], frame: Frame
) -> NDArray[np.bool_]:
    """The tokens whose cell of the label holds any crack pixel.

    A token's cell is its equal share of the network's input.

    Args:
        label: (H, W) of the image's own size; 1 is crack.
        grid: Height h and width w of the feature map in tokens.
        frame: Where the image lies in the network's input.

    Returns:
        (h, w).
    """
    tokens = np.zeros(grid, dtype=bool)
    at = []
    for pixels, size, window, count, total in zip(
        np.nonzero(label == 1),
        label.shape,
        (frame.rows, frame.columns),
        grid,
        frame.shape,
        strict=True,
    ):
        # Centres of the pixels, in the input and then in tokens.
        scale = (window.stop - window.start) / size
        inside = window.start + (pixels + 0.5) * scale
        at.append((inside * count / total).astype(int))
    tokens[tuple(at)] = True
    return tokens


def neighbour_pairs(crack: NDArray[np.bool_]) -> NDArray[np.int64]:
    """All pairs of crack tokens that are 8-neighbours, each once.

    Args:
        crack: (h, w).

    Returns:
        Row-major indices (P, 2).
    """
    height, width = crack.shape
    index = np.arange(height * width).reshape(height, width)
    whole, first, last = slice(None), slice(None, -1), slice(1, None)
    found = []
    for one, other in (
        ((whole, first), (whole, last)),
        ((first, whole), (last, whole)),
        ((first, first), (last, last)),
        ((first, last), (last, first)),
    ):
        both = crack[one] & crack[other]
        found.append(np.stack([index[one][both], index[other][both]], axis=1))
    return np.concatenate(found)


def pair_distances(
    pairs: NDArray[np.int64], orders: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Distance in sequence position of each pair.

    Args:
        pairs: Row-major indices (P, 2).
        orders: Sequences that the same scan reads, (K, L): row-major indices
            in the order of each.

    Returns:
        (P,), in the sequence where the two are nearest.
    """
    positions = np.argsort(orders, axis=1)[:, pairs]
    return abs(positions[..., 0] - positions[..., 1]).min(axis=0)


def random_distance(length: int, sequences: int = 1) -> float:
    """Expected distance of two tokens in random permutations.

    Args:
        length: Length L of the sequence, at least 2.
        sequences: Number K of independent permutations, of which the one
            counts where the two are nearest.

    Returns:
        (L + 1) / 3 for one permutation; else the sum over d of the
        probability that all K distances are at least d.
    """
    beyond = length - np.arange(1, length, dtype=np.float64)
    at_least = beyond * (beyond + 1) / (length * (length - 1))
    return float((at_least**sequences).sum())


def orders_of(scan: LevelScan) -> dict[str, NDArray[np.int64]]:
    """The orders to compare at one level.

    Reversed sequences are left out: their distances are the same. In one of
    the four snakes every two neighbours follow each other, so that the
    nearest of these is always 1.

    Args:
        scan: The level.

    Returns:
        (K, h * w) by name: K = 1 for one sequence, more for the nearest of
        those that a scan reads side by side.
    """
    orders = {
        name: order[None]
        for name, order in fixed_orders(scan.grid).items()
        if not name.endswith('backwards')
    }
    snakes = [x for name, x in orders.items() if name.startswith('snake')]
    orders[f'snakes, nearest of {len(snakes)}'] = np.concatenate(snakes)
    for name, order in scan.sequences.items():
        orders[name] = order[None]
    if scan.sequences:
        name = f'DPSM, nearest of {len(scan.sequences)}'
        orders[name] = np.stack(list(scan.sequences.values()))
    return orders


class DistanceSum:
    """Sums distances at one level over images."""

    def __init__(self) -> None:
        self._tokens = self._pairs = 0
        self._sums: dict[str, NDArray[np.float64]] = {}

    def add(self, scan: LevelScan, crack: NDArray[np.bool_]) -> None:
        """Count an image.

        Args:
            scan: How it is scanned at this level.
            crack: Its crack tokens (h, w).
        """
        pairs = neighbour_pairs(crack)
        self._tokens += int(crack.sum())
        self._pairs += len(pairs)
        if not len(pairs):
            return
        totals = {
            name: pair_distances(pairs, orders).sum()
            for name, orders in orders_of(scan).items()
        }
        for count in sorted({1, len(SNAKE_ORDERS), len(scan.sequences) or 1}):
            name = 'random' if count == 1 else f'random, nearest of {count}'
            totals[name] = len(pairs) * random_distance(crack.size, count)
        for name, total in totals.items():
            both = np.array([total, total / crack.size])
            self._sums[name] = self._sums.get(name, 0) + both

    def result(self) -> LevelDistances:
        """Means over the pairs of all images.

        They stand under the names of :func:`orders_of`, besides those
        expected of random permutations.
        """
        means = {
            name: Distance(*(both / self._pairs).tolist())
            for name, both in self._sums.items()
        }
        return LevelDistances(self._tokens, self._pairs, means)


def distances_table(levels: dict[int, LevelDistances]) -> PrettyTable:
    """Distances as a table, an order of a level a row."""
    table = PrettyTable(['level', 'order', 'mean distance', '/ length'])
    table.align = 'r'
    table.align['order'] = 'l'
    for level, found in levels.items():
        for name, mean in found.means.items():
            shown = [f'{mean.steps:.2f}', f'{mean.share:.4f}']
            table.add_row([level, name, *shown])
    return table
