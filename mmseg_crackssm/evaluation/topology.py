"""The ``topology`` protocol: is each crack there, and in one piece.

``clDice``
    Shit et al., "clDice", CVPR 2021, on masks: the harmonic mean of the share
    of the prediction's skeleton that lies in the label and of the share of
    the label's skeleton that lies in the prediction; mean over images. Of an
    image with neither it is 1.
``spurious``, ``missing``, ``breaks``
    Per image, on average: predicted components (eight neighbours) none of
    whose pixels lies within ``RADIUS`` pixels of the label; components of the
    label none of whose pixels lies so near to the prediction; and the
    interruptions of the other components of the label: of a component whose
    skeleton the prediction covers, within that distance, in k pieces, k - 1.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .aggregate import divide, mean_images
from .skeleton import EIGHT, skeleton
from .tolerance import distance_to, within

#: Distance at which a prediction still covers a crack, in pixels.
RADIUS = 2


def topology_record(
    crack: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    lines: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> NDArray[np.float64]:
    """What the protocol needs of one image.

    Args:
        crack: Label (H, W).
        predicted: Prediction (H, W).
        lines: The skeletons of both, where they are known already.

    Returns:
        (4,): clDice, spurious, missing, breaks.
    """
    crack_line, predicted_line = lines or (
        skeleton(crack),
        skeleton(predicted),
    )
    near_crack = within(distance_to(crack), RADIUS)
    near_predicted = within(distance_to(predicted), RADIUS)
    missing, breaks = _missing_and_breaks(crack, crack_line, near_predicted)
    return np.array(
        [
            _cldice(crack, predicted, crack_line, predicted_line),
            np.count_nonzero(~_touched(predicted, near_crack)),
            missing,
            breaks,
        ]
    )


def topology_scores(
    records: NDArray, weights: NDArray | None = None
) -> dict[str, NDArray[np.float64]]:
    """Means over images.

    Args:
        records: (n, 4), from :func:`topology_record`.
        weights: (R, n), see :mod:`.aggregate`.

    Returns:
        ``clDice``, a fraction, and ``spurious``, ``missing`` and ``breaks``,
        numbers per image; of shape () or (R,).
    """
    names = ('clDice', 'spurious', 'missing', 'breaks')
    means = np.moveaxis(mean_images(records, weights=weights), -1, 0)
    return dict(zip(names, means, strict=True))


def _cldice(
    crack: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    crack_line: NDArray[np.bool_],
    predicted_line: NDArray[np.bool_],
) -> float:
    if not (crack.any() or predicted.any()):
        return 1.0
    precision = _share(predicted_line, crack)
    recall = _share(crack_line, predicted)
    return float(divide(2 * precision * recall, precision + recall, empty=0.0))


def _share(line: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Share of a skeleton inside a mask, 0 of an empty one."""
    inside = np.count_nonzero(line & mask)
    return float(divide(inside, np.count_nonzero(line), empty=0.0))


def _touched(
    mask: NDArray[np.bool_], near: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Of each component of a mask, whether some pixel is near."""
    labels, count = ndimage.label(mask, structure=EIGHT)
    touched = np.zeros(count + 1, dtype=bool)
    touched[labels[mask & near]] = True
    return touched[1:]


def _missing_and_breaks(
    crack: NDArray[np.bool_],
    crack_line: NDArray[np.bool_],
    near_predicted: NDArray[np.bool_],
) -> tuple[int, int]:
    components, count = ndimage.label(crack, structure=EIGHT)
    found = np.zeros(count + 1, dtype=bool)
    found[components[crack & near_predicted]] = True
    pieces, num_pieces = ndimage.label(
        crack_line & near_predicted, structure=EIGHT
    )
    # The component that each piece lies in, by any of its pixels.
    owner = np.zeros(num_pieces + 1, dtype=np.int64)
    owner[pieces[pieces > 0]] = components[pieces > 0]
    per_component = np.bincount(owner[1:], minlength=count + 1)[1:]
    breaks = np.maximum(per_component - 1, 0).sum()
    return int(np.count_nonzero(~found[1:])), int(breaks)
