"""Progress of long work."""

import sys
from collections.abc import Iterable, Sequence

from mmengine.utils import track_iter_progress


def track(items: Sequence, progress: bool = True) -> Iterable:
    """The items, with a progress bar on the standard error stream.

    Args:
        items: A list; or an iterable and its length, as a tuple.
        progress: False for the items of a list alone.
    """
    return track_iter_progress(items, file=sys.stderr) if progress else items
