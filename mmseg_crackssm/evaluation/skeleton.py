"""Skeletons of masks and their lengths."""

import math

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

EIGHT = np.ones((3, 3), dtype=bool)


def skeleton(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """One pixel wide centre lines of a mask (H, W).

    Zhang and Suen, "A fast parallel algorithm for thinning digital patterns",
    1984, as scikit-image has it.
    """
    return skeletonize(mask)


def skeleton_length(centre: NDArray[np.bool_]) -> float:
    """Length of centre lines, in pixels.

    Each step to a neighbour along a row or column counts 1, each diagonal one
    the root of 2 unless two steps along row and column lead there as well. A
    line of n pixels is n - 1 long; half a pixel at each of its ends is not
    counted.

    Args:
        centre: (H, W), as :func:`skeleton` gives it.
    """
    straight = np.count_nonzero(centre[1:] & centre[:-1]) + np.count_nonzero(
        centre[:, 1:] & centre[:, :-1]
    )
    upper_left, upper_right = centre[:-1, :-1], centre[:-1, 1:]
    lower_left, lower_right = centre[1:, :-1], centre[1:, 1:]
    diagonal = np.count_nonzero(
        upper_left & lower_right & ~upper_right & ~lower_left
    ) + np.count_nonzero(upper_right & lower_left & ~upper_left & ~lower_right)
    return straight + math.sqrt(2) * diagonal
