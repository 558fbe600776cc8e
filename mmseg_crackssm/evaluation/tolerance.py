"""The ``tolerance`` protocol: precision, recall and F1 within some pixels.

Annotators place a crack a pixel or two beside each other, so the CrackForest
literature forgives small distances. The rule here: a predicted crack pixel is
right if a crack pixel of the label lies within the radius r (Euclidean), and
a crack pixel of the label is found if a predicted one does. One pixel may
serve several. Precision is the share of predicted pixels that are right,
recall the share of the label's that are found, both pooled over all images,
and F1 their harmonic mean. With r = 0 these are the plain ones.

The one-to-one matching of the edge-detection benchmarks is not offered: it is
defined on thinned edges, and leaves the thinning of a mask, the weight of
unmatched pixels and, through random outlier nodes, the result itself open.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .aggregate import divide, sum_images

#: Radii of the literature, in pixels.
RADII = (2, 5)


def tolerance_record(
    crack: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    radii: Sequence[float] = RADII,
) -> NDArray[np.int64]:
    """Count an image's pixels within each radius.

    Args:
        crack: Label (H, W).
        predicted: Prediction (H, W).
        radii: In pixels, at least 0.

    Returns:
        (len(radii), 4): right predicted pixels, predicted pixels, found
        pixels of the label, pixels of the label.
    """
    to_crack = distance_to(crack)[predicted]
    to_predicted = distance_to(predicted)[crack]
    return np.array(
        [
            [
                np.count_nonzero(within(to_crack, radius)),
                to_crack.size,
                np.count_nonzero(within(to_predicted, radius)),
                to_predicted.size,
            ]
            for radius in radii
        ],
        dtype=np.int64,
    )


def tolerance_scores(
    records: NDArray,
    weights: NDArray | None = None,
    radii: Sequence[float] = RADII,
) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 at each radius.

    Args:
        records: (n, len(radii), 4), from :func:`tolerance_record`.
        weights: (R, n), see :mod:`.aggregate`.
        radii: Those of the records.

    Returns:
        Fractions of shape () or (R,): ``F1@2px``, ``P@2px``, ``R@2px`` and so
        on. Without predicted pixels P is 1, without crack R is 1.
    """
    sums = sum_images(records, weights=weights)
    scores = {}
    for index, radius in enumerate(radii):
        right, predicted, found, crack = np.moveaxis(
            sums[..., index, :], -1, 0
        )
        precision = divide(right, predicted, empty=1.0)
        recall = divide(found, crack, empty=1.0)
        f1 = divide(2 * precision * recall, precision + recall, empty=0.0)
        scores |= {
            f'F1@{radius:g}px': f1,
            f'P@{radius:g}px': precision,
            f'R@{radius:g}px': recall,
        }
    return scores


def distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Euclidean distance of each pixel to a mask, (H, W); inf if empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    return cv2.distanceTransform(
        np.logical_not(mask).astype(np.uint8),
        cv2.DIST_L2,
        cv2.DIST_MASK_PRECISE,
    )


def within(distance: NDArray[np.float32], radius: float) -> NDArray[np.bool_]:
    """Whether distances are at most a radius.

    Squared distances are whole numbers, so that the slack for the rounding
    of their roots admits no further pixel up to radii of some hundred.
    """
    return distance <= radius + 1e-4 * max(radius, 1) / 8
