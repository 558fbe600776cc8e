"""The ``size`` protocol: how long and how wide cracks are measured to be.

The length of an image's cracks is that of their skeletons
(:func:`~.skeleton.skeleton_length`), their mean width their area over their
length, both in pixels. Errors are those of the prediction against the label.
"""

import math

import numpy as np
from numpy.typing import NDArray

from .aggregate import mean_images
from .skeleton import skeleton, skeleton_length


def size_record(
    crack: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    lines: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> NDArray[np.float64]:
    """Errors of one image.

    Args:
        crack: Label (H, W).
        predicted: Prediction (H, W).
        lines: The skeletons of both, where they are known already.

    Returns:
        (2,): length and mean width of the prediction less the label's, in
        pixels; the width's is nan where either has no crack.
    """
    crack_line, predicted_line = lines or (None, None)
    length, width = measure_cracks(predicted, predicted_line)
    true_length, true_width = measure_cracks(crack, crack_line)
    return np.array([length - true_length, width - true_width])


def size_scores(
    records: NDArray, weights: NDArray | None = None
) -> dict[str, NDArray[np.float64]]:
    """Mean errors over images.

    Args:
        records: (n, 2), from :func:`size_record`.
        weights: (R, n), see :mod:`.aggregate`.

    Returns:
        In pixels, of shape () or (R,): ``length_error`` and ``width_error``,
        means of the absolute errors, and ``length_bias`` and ``width_bias``,
        means of the errors, positive where the prediction is longer or wider.
        Widths over the images in which label and prediction have a crack.
    """
    errors = np.moveaxis(mean_images(np.abs(records), weights=weights), -1, 0)
    biases = np.moveaxis(mean_images(records, weights=weights), -1, 0)
    return {
        'length_error': errors[0],
        'length_bias': biases[0],
        'width_error': errors[1],
        'width_bias': biases[1],
    }


def measure_cracks(
    mask: NDArray[np.bool_], line: NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """Total length and mean width of a mask's cracks.

    Args:
        mask: (H, W).
        line: Its skeleton, where it is known already.

    Returns:
        In pixels; the width is nan without crack. A crack that is a mere dot
        counts as one pixel long.
    """
    area = np.count_nonzero(mask)
    if not area:
        return 0.0, math.nan
    line = skeleton(mask) if line is None else line
    length = max(skeleton_length(line), 1.0)
    return length, area / length
