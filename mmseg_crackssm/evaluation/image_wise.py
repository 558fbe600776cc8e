"""The ``image`` protocol: mi IoU and mi Dice.

He and Wang, "CrackMamba", eqs. 18 and 19: means over images, the Dice of the
probabilities rather than of the mask. An image without crack in which none is
predicted scores 1 under both, by the epsilon of the equations.
"""

import numpy as np
from numpy.typing import NDArray

from .aggregate import mean_images

#: Added to numerators and denominators, as the paper has it.
EPSILON = 1e-6


def image_record(
    prob: NDArray, crack: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """What the protocol needs of one image.

    Args:
        prob: Crack probabilities of the pixels that count, any shape.
        crack: Whether each is crack by the label, same shape.
        predicted: Whether each is crack by the prediction, same shape.

    Returns:
        (2,): IoU and Dice.
    """
    hit = np.count_nonzero(crack & predicted)
    union = np.count_nonzero(crack | predicted)
    overlap = float(prob[crack].sum(dtype=np.float64))
    total = float(prob.sum(dtype=np.float64)) + np.count_nonzero(crack)
    return np.array(
        [
            (hit + EPSILON) / (union + EPSILON),
            (2 * overlap + EPSILON) / (total + EPSILON),
        ]
    )


def image_scores(
    records: NDArray, weights: NDArray | None = None
) -> dict[str, NDArray[np.float64]]:
    """mi IoU and mi Dice.

    Args:
        records: (n, 2), from :func:`image_record`.
        weights: (R, n), see :mod:`.aggregate`.

    Returns:
        ``miIoU`` and ``miDice``, fractions, of shape () or (R,).
    """
    iou, dice = np.moveaxis(mean_images(records, weights=weights), -1, 0)
    return {'miIoU': iou, 'miDice': dice}
