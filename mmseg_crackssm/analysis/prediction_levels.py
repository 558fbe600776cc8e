"""What the levels of a folder of predictions are: scores, masks, labels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..apis.errors import UsageError
from ..datasets.crack_dataset import printable

#: So many different levels in a whole folder at most are masks or labels, and
#: not scores.
MAX_LABELS = 8


class FolderLevels:
    """The levels that the predictions of one bit depth hold together.

    One image does not tell whether its 1 is crack or a score of 1/255; all of
    them together do.

    Args:
        full: The highest level of the depth, 255 or 65535.
    """

    def __init__(self, full: int) -> None:
        self.full = full
        self._top = 0
        #: The first file of each level; more than MAX_LABELS are not counted.
        self._first: dict[int, Path] = {}

    def add(self, levels: NDArray, path: Path) -> None:
        """Take note of one prediction's levels, of the depth's type."""
        self._top = max(self._top, int(levels.max(initial=0)))
        if len(self._first) > MAX_LABELS:
            return
        present = np.zeros(self.full + 1, dtype=bool)
        present[levels] = True
        for level in np.flatnonzero(present)[: MAX_LABELS + 1].tolist():
            self._first.setdefault(level, path)

    @property
    def are_masks(self) -> bool:
        """Whether there is no level but 0 and 1."""
        return self._first.keys() <= {0, 1}

    def check(self) -> None:
        """Refuse levels that are no scores from 0 to ``full``.

        Raises:
            UsageError: If it would be wrong to read them as such.
        """
        if self.are_masks:
            return
        if self._top < 256 < self.full:
            raise UsageError(
                f'the predictions of 16 bits hold no level above {self._top} '
                f'(e.g. {printable(next(iter(self._first.values())))}), which '
                f'of {self.full} is a score of {self._top / self.full:.4f} at '
                'most: save them with 8 bits, or multiply them by '
                f'{self.full // 255}'
            )
        if len(self._first) > MAX_LABELS:
            return
        # On the scale of 8 bits.
        levels = [x * 255 / self.full for x in sorted(self._first) if x]
        # Masks out of JPEG have levels next to both ends.
        rings = levels[-2:][0] >= 239 and not any(16 < x < 239 for x in levels)
        if levels[-1] < 128:
            reason = 'labels rather than scores, none of them crack'
        elif levels[0] < 16 and not rings:
            reason = 'labels, or masks of several kinds'
        else:
            return
        found = ', '.join(
            f'{level} (first in {printable(self._first[level])})'
            for level in sorted(self._first)
            if level
        )
        raise UsageError(
            f'all predictions together hold 0 and {found} alone, which look '
            f'like {reason}. Expected scores from 0 to {self.full}, or masks: '
            f'write crack as {self.full}, and all else as 0, in each of them'
        )
