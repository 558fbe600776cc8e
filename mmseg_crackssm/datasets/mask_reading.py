"""From an image file to the grey levels of a mask, and what they mean."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from .crack_dataset import printable

#: Grey levels by which the channels of a grey RGB mask may differ: JPEG
#: stores colour differences and rounds them.
CHANNEL_TOLERANCE = 16
#: Grey level from which a compressed 0/255 mask counts as crack by default.
DEFAULT_THRESHOLD = 127
#: A grey-level mask is taken for a compressed 0/255 mask only if at most this
#: share of its pixels lies between the two ends (64..191).
MAX_BETWEEN = 0.1


class Mask(NamedTuple):
    """A decoded mask file.

    Attributes:
        image: As Pillow gives it, of any mode.
        lossy: Whether the file is JPEG, whose levels are never labels.
    """

    image: Image.Image
    lossy: bool


def list_values(values: np.ndarray) -> str:
    """The values found, shortened in the middle."""
    values = values.tolist()
    if len(values) > 12:
        return (
            f'{len(values)} values: '
            + ', '.join(map(str, values[:6]))
            + ', ..., '
            + ', '.join(map(str, values[-3:]))
        )
    return ', '.join(map(str, values))


def decode_mask(content: bytes, path: str) -> Mask:
    """Decode a mask file.

    Args:
        content: The file.
        path: For the message.

    Raises:
        ValueError: If it is no image, or damaged.
    """
    try:
        image = Image.open(io.BytesIO(content))
        lossy = image.format == 'JPEG'
        image.load()
        # mmcv turns images by their EXIF orientation as well.
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow raises a dozen types here
        raise ValueError(
            f'the mask {printable(path)} cannot be decoded '
            f'({type(error).__name__}: {error}); expected an image file '
            f'such as PNG. Got {len(content)} bytes: download or export '
            'it again'
        ) from error
    return Mask(image=image, lossy=lossy)


def match_colors(
    image: Image.Image, colors: Sequence[Sequence[int]]
) -> np.ndarray:
    """Pixels of exactly one of the RGB colours: uint8 (H, W), 0 and 1."""
    array = np.asarray(image.convert('RGB'))
    mask = np.zeros(array.shape[:2], dtype=np.uint8)
    for color in colors:
        mask[(array == np.asarray(color, np.uint8)).all(axis=-1)] = 1
    return mask


def to_grey(image: Image.Image, path: str) -> np.ndarray:
    """Reduce any mode to one channel.

    Args:
        image: The mask.
        path: For the message.

    Returns:
        Levels 0..255, uint8 (H, W); 0 and 1 of a 1-bit image.

    Raises:
        ValueError: If the image has no single grey level per pixel.
    """
    if image.mode == 'P':
        return _palette_to_grey(image)
    if image.mode == '1':
        return np.asarray(image).astype(np.uint8)
    array = np.asarray(image)
    if array.ndim == 2:
        return _to_uint8(array, path)
    alpha = array[..., -1] if image.mode in ('LA', 'RGBA') else None
    color = array[..., :-1] if alpha is not None else array
    if image.mode not in ('LA', 'RGB', 'RGBA'):
        raise ValueError(
            f'the mask {printable(path)} has the colour mode '
            f'{image.mode}; expected 1-bit, grey, palette, RGB or RGBA'
        )
    low = color.min(axis=-1).astype(np.int16)
    high = color.max(axis=-1).astype(np.int16)
    if int((high - low).max()) > CHANNEL_TOLERANCE:
        colors = np.unique(color.reshape(-1, color.shape[-1]), axis=0)
        raise ValueError(_has_colors(colors, path))
    grey = np.round(color.mean(axis=-1)).astype(np.uint8)
    if alpha is not None and alpha.min() != alpha.max():
        if not np.array_equal(alpha, grey):
            raise ValueError(
                f'the mask {printable(path)} has an alpha channel that '
                'differs from its grey levels (alpha '
                f'{list_values(np.unique(alpha))}; grey '
                f'{list_values(np.unique(grey))}), so that either may '
                'be the mask. Save it without alpha'
            )
    return grey


def _has_colors(colors: np.ndarray, path: str) -> str:
    """The message that a mask has the RGB colours (n, 3)."""
    shown = [tuple(color) for color in colors[:6].tolist()]
    more = ', ...' if len(colors) > 6 else ''
    return (
        f'the mask {printable(path)} has colours: {shown}{more}. Say which '
        'RGB colours mean crack with '
        'LoadCrackAnnotations(crack_colors=[(r, g, b), ...])'
    )


def _palette_to_grey(image: Image.Image) -> np.ndarray:
    indices = np.asarray(image)
    used = np.unique(indices)
    palette = np.zeros((256, 3), dtype=np.uint8)
    entries = np.asarray(image.getpalette('RGB'), dtype=np.uint8)
    entries = entries.reshape(-1, 3)[:256]
    palette[: len(entries)] = entries
    colors = palette[used]
    is_grey = (colors == colors[:, :1]).all()
    if is_grey and len(np.unique(colors[:, 0])) == len(used):
        return palette[indices, 0]
    return indices.astype(np.uint8)


def _to_uint8(array: np.ndarray, path: str) -> np.ndarray:
    """Bring 16-bit, 32-bit and float masks to levels 0..255."""
    if array.dtype == np.uint8:
        return array
    values = np.unique(array)
    if set(values.tolist()) == {0, 65535}:
        return (array > 0).astype(np.uint8) * 255
    if values[0] >= 0 and values[-1] <= 255:
        if np.array_equal(values, np.round(values)):
            return array.astype(np.uint8)
    raise ValueError(
        f'the mask {printable(path)} holds {array.dtype} values outside '
        f'0..255: {list_values(values)}. Expected 8 bits, or 0 and '
        '65535 alone: convert it'
    )


def crack_levels(histogram: np.ndarray, lossy: bool) -> np.ndarray:
    """Decide which of the 256 levels of one mask mean crack.

    Args:
        histogram: Pixels per level (256,), ignored pixels left out.
        lossy: Whether the file is JPEG, whose levels are never labels.

    Returns:
        Boolean (256,), true for the levels that mean crack.

    Raises:
        ValueError: If the levels have no single reading. The message holds
            the reason alone; the caller adds the file and the remedy.
    """
    levels = np.arange(256)
    found = np.flatnonzero(histogram)
    present = set(found.tolist())
    if present <= {0}:
        return np.zeros(256, dtype=bool)
    if len(present) == 1:
        raise ValueError(
            'every pixel has the same value, which says "the whole image is '
            'crack" or belongs to another labelling'
        )
    if present == {0, 255}:
        return levels == 255
    if present == {0, 1} and not lossy:
        return levels == 1

    total = histogram.sum()
    between = histogram[64:192].sum() / total
    if found[0] >= 64 or found[-1] < 192:
        raise ValueError(
            'these are neither 0/1 nor 0/255 nor grey levels of a compressed '
            '0/255 mask, so they may be a label map'
        )
    if between > MAX_BETWEEN:
        raise ValueError(
            f'{between:.0%} of the pixels are mid-grey (64..191), too many '
            'for a compressed 0/255 mask'
        )
    # Labels are few, start from zero and have one "ignore" at 255 at most;
    # a compressed mask has many levels, or several at the upper end.
    rings = present <= {*range(17), *range(239, 256)} and found[-2] >= 239
    if len(present) < 8 and not (lossy or rings):
        raise ValueError(
            'so few different values are labels rather than grey levels of '
            'a compressed mask'
        )
    return levels > DEFAULT_THRESHOLD
