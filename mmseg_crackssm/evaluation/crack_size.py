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
    crack: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Errors of one image.

    Args:
        crack: Label (H, W).
        predicted: Prediction (H, W).

    Returns:
        (2,): length and mean width of the prediction less the label's, in
        pixels; the width's is nan where either has no crack.
    """
    (length, width), (true_length, true_width) = map(
        measure_cracks, (predicted, crack)
    )
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


def measure_cracks(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Total length and mean width of a mask's cracks.

    Args:
        mask: (H, W).

    Returns:
        In pixels; the width is nan without crack. A crack that is a mere dot
        counts as one pixel long.
    """
    area = np.count_nonzero(mask)
    if not area:
        return 0.0, math.nan
    length = max(skeleton_length(skeleton(mask)), 1.0)
    return length, area / length
