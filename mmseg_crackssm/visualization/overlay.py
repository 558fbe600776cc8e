"""Predicted cracks painted over the image."""

from collections.abc import Sequence

import numpy as np

#: Colours as BGR. Those of the comparison are Okabe and Ito's bluish green,
#: vermilion and blue, told apart by colour-blind readers too.
CRACK_COLOR = (32, 16, 255)
HIT_COLOR = (115, 158, 0)
FALSE_COLOR = (0, 94, 213)
MISSED_COLOR = (178, 114, 0)


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            'image must be uint8 of shape (H, W, 3), got '
            f'{image.dtype} of shape {image.shape}'
        )


def _check_mask(mask: np.ndarray, image: np.ndarray, name: str) -> None:
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f'{name} has shape {mask.shape}, the image {image.shape[:2]}: '
            'resize one to the other'
        )


def _blend(
    image: np.ndarray, where: np.ndarray, color: Sequence[int], alpha: float
) -> None:
    """Paint ``color`` over the pixels ``where`` of ``image``, in place."""
    mixed = image[where] * (1 - alpha) + np.asarray(color) * alpha
    image[where] = np.rint(mixed).astype(np.uint8)


def draw_overlay(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    color: Sequence[int] = CRACK_COLOR,
    alpha: float = 0.6,
) -> np.ndarray:
    """Paint the crack pixels semi-transparently over the image.

    Args:
        image: BGR uint8 (H, W, 3).
        mask: (H, W), non-zero is crack.
        color: BGR.
        alpha: Opacity of the colour, 0 to 1.

    Returns:
        A new BGR uint8 image (H, W, 3).
    """
    _check_image(image)
    _check_mask(mask, image, 'mask')
    painted = image.copy()
    _blend(painted, mask.astype(bool), color, alpha)
    return painted


def draw_comparison(
    image: np.ndarray,
    mask: np.ndarray,
    label: np.ndarray,
    *,
    ignore_index: int = 255,
    alpha: float = 0.85,
) -> np.ndarray:
    """Paint hits green, false alarms orange-red and missed pixels blue.

    Args:
        image: BGR uint8 (H, W, 3).
        mask: Prediction (H, W), non-zero is crack.
        label: Ground truth (H, W), 1 is crack; pixels of ``ignore_index``
            stay unpainted.
        ignore_index: Label of pixels that do not count.
        alpha: Opacity of the colours, 0 to 1.

    Returns:
        A new BGR uint8 image (H, W, 3).
    """
    _check_image(image)
    _check_mask(mask, image, 'mask')
    _check_mask(label, image, 'label')
    crack = label == 1
    found = mask.astype(bool) & (label != ignore_index)
    painted = image.copy()
    _blend(painted, found & crack, HIT_COLOR, alpha)
    _blend(painted, found & ~crack, FALSE_COLOR, alpha)
    _blend(painted, ~found & crack, MISSED_COLOR, alpha)
    return painted
