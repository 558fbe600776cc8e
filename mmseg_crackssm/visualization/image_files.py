"""Writing images under any file name."""

from pathlib import Path

import cv2
import numpy as np


def has_image_writer(path: Path) -> bool:
    """Whether the file's suffix names a format that can be written."""
    # OpenCV crashes on names that are no Unicode.
    return path.suffix.isascii() and cv2.haveImageWriter(f'x{path.suffix}')


def write_image(path: Path, array: np.ndarray) -> None:
    """Write an image in the format of its suffix, making its folder.

    OpenCV's own ``imwrite`` takes no file name in another encoding than
    UTF-8.

    Args:
        path: File to write.
        array: uint8 or, as PNG or TIFF, uint16; (H, W) or BGR (H, W, 3).

    Raises:
        ValueError: If the suffix names no format.
        OSError: If it cannot be encoded or written.
    """
    if not has_image_writer(path):
        raise ValueError(
            f'expected the suffix of an image format, such as .png, got '
            f'{str(path)!r}'
        )
    done, data = cv2.imencode(path.suffix, array)
    if not done:
        raise OSError(f'{path}: cannot encode an image of {array.shape}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
