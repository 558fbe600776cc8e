"""Where dynamic adaptive scan reads the map."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prettytable import PrettyTable

from ..apis.errors import UsageError


class Reads(NamedTuple):
    """Where one layer reads, instead of at the tokens themselves.

    Attributes:
        layer: Path of the layer in the model.
        offsets: How far from the tokens, in tokens: dx and dy of each of G
            groups of channels, (G, 2, h, w).
        in_dpsm: Whether the sequences of DPSM read these points; else they
            are read row after row.
    """

    layer: str
    offsets: NDArray[np.float32]
    in_dpsm: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Height h and width w of the map in tokens."""
        return self.offsets.shape[2:]

    def positions(self) -> NDArray[np.float64]:
        """Column and row in tokens, 0 being the centre of the first.

        Returns:
            (G, 2, h, w).
        """
        rows, columns = np.indices(self.grid)
        return self.offsets + np.stack([columns, rows])

    def points(
        self, group: int, order: NDArray[np.int64], shape: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Where the tokens of a sequence are read.

        Args:
            group: Number of the group, from 1.
            order: Row-major indices (L,) in the order of the sequence.
            shape: Height and width in pixels of the image that the tokens
                are spread over.

        Returns:
            (x, y) in pixels, (L, 2), in the order of the sequence; those
            outside of the image read zeros.
        """
        found = self.positions()[group - 1].reshape(2, -1).T[order]
        height, width = self.grid
        return (found + 0.5) * [shape[1] / width, shape[0] / height]

    def lengths(self) -> NDArray[np.float64]:
        """Mean length of the offsets in tokens, by group (G,)."""
        return np.hypot(*self.offsets.swapaxes(0, 1)).mean(axis=(1, 2))

    def outside(self) -> NDArray[np.float64]:
        """Share of the points that are outside of the map, by group (G,)."""
        return (~self._cells()[1]).mean(axis=(1, 2))

    def _cells(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The token that each point is in, (G, 2, h, w), and if in any."""
        size = np.array(self.grid[::-1]).reshape(1, 2, 1, 1)
        cells = np.floor(self.positions() + 0.5).astype(int)
        inside = ((cells >= 0) & (cells < size)).all(axis=1)
        return np.clip(cells, 0, size - 1), inside

    def on_crack(self, crack: NDArray[np.bool_]) -> float:
        """Share of the points, of all groups, that are in crack tokens.

        Args:
            crack: Crack tokens (h, w).
        """
        cells, inside = self._cells()
        return float((crack[cells[:, 1], cells[:, 0]] & inside).mean())

    def pick_groups(
        self, wanted: Sequence[int] | None, count: int
    ) -> list[int]:
        """The groups to show.

        Args:
            wanted: Numbers from 1; None for those that read farthest away.
            count: How many of these.

        Raises:
            UsageError: If there is no such group.
        """
        total = len(self.offsets)
        if wanted is None:
            return sorted(np.argsort(-self.lengths())[:count] + 1)
        wrong = [x for x in wanted if not 1 <= x <= total]
        if wrong:
            raise UsageError(
                f'--groups {wrong[0]}: {self.layer} has groups 1 to {total}'
            )
        return list(wanted)


def pick_reads(
    reads: Sequence[Reads], grid: tuple[int, int], layer: str | None
) -> Reads | None:
    """The layer to show at a level.

    Args:
        reads: Of all layers.
        grid: Height and width of the level in tokens.
        layer: End of the layer's path; None for the last at that level.

    Returns:
        None if no layer at this level has dynamic adaptive scan, and none is
        asked for.

    Raises:
        UsageError: If there is no such layer at the level, or several.
    """
    here = [found for found in reads if found.grid == grid]
    if layer is None:
        return here[-1] if here else None
    found = [
        x for x in here if f'.{x.layer}'.endswith(f'.{layer.lstrip(".")}')
    ]
    if len(found) != 1:
        names = ', '.join(x.layer for x in found or here) or 'none at all'
        raise UsageError(
            f'--layer {layer}: expected the end of the path of one layer '
            f'with dynamic adaptive scan at this level, out of {names}'
        )
    return found[0]


class CrackReads(NamedTuple):
    """How often a layer reads in crack tokens, over all images.

    Attributes:
        reads: Share of its reads.
        tokens: Share of all tokens that are crack: what it would read
            without offsets.
    """

    reads: float
    tokens: float


class ReadSum:
    """Sums the reads of one layer over images."""

    def __init__(self) -> None:
        self._reads = self._crack = 0.0
        self._tokens = 0

    def add(self, reads: Reads, crack: NDArray[np.bool_]) -> None:
        """Count an image.

        Args:
            reads: Where the layer reads in it.
            crack: Its crack tokens (h, w).
        """
        self._reads += reads.on_crack(crack) * crack.size
        self._crack += crack.sum()
        self._tokens += crack.size

    def result(self) -> CrackReads:
        """Shares over the tokens of all images."""
        shares = np.array([self._reads, self._crack]) / self._tokens
        return CrackReads(*shares.tolist())


def reads_table(layers: dict[str, CrackReads]) -> PrettyTable:
    """Shares as a table, a layer a row."""
    table = PrettyTable(['layer', 'reads on crack', 'tokens on crack'])
    table.align = 'r'
    table.align['layer'] = 'l'
    for layer, found in layers.items():
        table.add_row([layer, f'{found.reads:.2%}', f'{found.tokens:.2%}'])
    return table
