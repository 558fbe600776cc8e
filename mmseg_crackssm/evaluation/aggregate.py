"""Sums and means over images, also over many resamplings of them at once.

Every figure here is made of sums over images, so that a resampling of the
images is a number of times that each counts: ``weights`` (R, n), one row per
resampling. Without weights the sums are exactly rounded, and no figure then
depends on the order of the images.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sum_images(
    values: ArrayLike, weights: NDArray | None = None
) -> NDArray[np.float64]:
    """Sum over images.

    Args:
        values: (n, ...), finite.
        weights: (R, n) counts, or None for each image once.

    Returns:
        (...), or (R, ...) with weights.
    """
    values = np.asarray(values)
    flat = values.reshape(len(values), -1)
    if weights is not None:
        sums = weights.astype(np.float64) @ flat.astype(np.float64)
        return sums.reshape(-1, *values.shape[1:])
    if np.issubdtype(values.dtype, np.integer):
        return values.sum(axis=0).astype(np.float64)
    sums = np.array([math.fsum(column) for column in flat.T])
    return sums.reshape(values.shape[1:])


def mean_images(
    values: ArrayLike, weights: NDArray | None = None
) -> NDArray[np.float64]:
    """Mean over the images in which a value is defined, that is, not nan.

    Args:
        values: (n, ...), finite or nan.
        weights: As in :func:`sum_images`.

    Returns:
        (...), or (R, ...) with weights; nan where no image has a value.
    """
    values = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(values)
    total = sum_images(np.where(defined, values, 0.0), weights=weights)
    count = sum_images(defined.astype(np.int64), weights=weights)
    return divide(total, count, empty=math.nan)


def divide(
    numerator: ArrayLike, denominator: ArrayLike, empty: float
) -> NDArray[np.float64]:
    """Quotient, ``empty`` where the denominator is 0."""
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    is_zero = denominator == 0
    return np.where(
        is_zero, empty, numerator / np.where(is_zero, 1, denominator)
    )


def resampling_weights(
    count: int, rounds: int = 1000, seed: int = 0
) -> NDArray[np.int64]:
    """Draw images with replacement, as the bootstrap does.

    Args:
        count: Number of images n.
        rounds: Number of resamplings R.
        seed: Of the draws. The same count, rounds and seed give the same
            draws, so that two sets of predictions can be paired.

    Returns:
        (R, n): how often each image is drawn; rows sum to n.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, [1 / count] * count, size=rounds)
