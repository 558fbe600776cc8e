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
EXIF_ORIENTATION = 0x0112
#: Grey level from which a compressed 0/255 mask counts as crack by default.
DEFAULT_THRESHOLD = 127
#: A grey-level mask is taken for a compressed 0/255 mask only if at most this
#: share of its pixels lies between the two ends (64..191).
MAX_BETWEEN = 0.1


#: Share of crack pixels above which a mask is probably inverted.
INVERTED_SHARE = 0.5


class UnclearMaskError(ValueError):
    """A mask that has no single reading.

    Args:
        reason: The file, and what it holds.
        remedy: How to say what is meant, to ``LoadCrackAnnotations``; programs
            with options of their own tell those instead.
    """

    def __init__(self, reason: str, remedy: str = '') -> None:
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy

    def __str__(self) -> str:
        return f'{self.reason}. {self.remedy}' if self.remedy else self.reason


class Mask(NamedTuple):
    """A decoded mask file.

    Attributes:
        image: As Pillow gives it, of any mode.
        lossy: Whether the file is JPEG, whose levels are never labels.
        turned: Whether ``image`` was turned by its EXIF orientation.
    """

    image: Image.Image
    lossy: bool
    turned: bool


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
        turned = _orientation_of(image) > 1
        image = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f'the mask {printable(path)} is too large for Pillow ({error}). '
            'Cut it and its image into pieces; or, if you trust its source, '
            'set PIL.Image.MAX_IMAGE_PIXELS = None'
        ) from error
    except Exception as error:  # Pillow raises a dozen types here
        raise ValueError(
            f'the mask {printable(path)} cannot be decoded '
            f'({type(error).__name__}: {error}); expected an image file '
            f'such as PNG. Got {len(content)} bytes: download or export '
            'it again'
        ) from error
    return Mask(image=image, lossy=lossy, turned=turned)


def _orientation_of(image: Image.Image) -> int:
    """1 to 8; 1, upright, where there is none or a wrong one."""
    orientation = image.getexif().get(EXIF_ORIENTATION)
    return orientation if orientation in range(1, 9) else 1


def jpeg_orientation(path: str) -> int:
    """EXIF orientation of a JPEG file, 1 to 8; reads its header alone.

    Args:
        path: Local file. For any other, and for what is no JPEG, the answer
            is 1, upright.
    """
    if not path.lower().endswith(('.jpg', '.jpeg')):
        return 1
    try:
        with Image.open(path) as image:
            return _orientation_of(image)
    except Exception:  # Its own loader says better what is wrong with it.
        return 1


def match_colors(
    image: Image.Image, colors: Sequence[Sequence[int]]
) -> np.ndarray:
    """Pixels of exactly one of the RGB colours: uint8 (H, W), 0 and 1."""
    array = np.asarray(image.convert('RGB'))
    mask = np.zeros(array.shape[:2], dtype=np.uint8)
    for color in colors:
        mask[(array == np.asarray(color, np.uint8)).all(axis=-1)] = 1
    return mask


def to_grey(
    image: Image.Image, path: str, by_index: bool = False
) -> np.ndarray:
    """Reduce any mode to one channel.

    Args:
        image: The mask.
        path: For the message.
        by_index: Whether the caller knows what the indices of a palette with
            colours mean, in whatever order they are.

    Returns:
        Levels 0..255, uint8 (H, W); 0 and 1 of a 1-bit image.

    Raises:
        ValueError: If the image has no single grey level per pixel.
    """
    if image.mode == 'P':
        return _palette_to_grey(image, path, by_index)
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
        raise _has_colors(colors, path)
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


def _has_colors(colors: np.ndarray, path: str) -> UnclearMaskError:
    """A mask has the RGB colours (n, 3)."""
    shown = [tuple(color) for color in colors[:6].tolist()]
    more = ', ...' if len(colors) > 6 else ''
    return UnclearMaskError(
        f'the mask {printable(path)} has colours: {shown}{more}',
        'Say which RGB colours mean crack with '
        'LoadCrackAnnotations(crack_colors=[(r, g, b), ...])',
    )


def _palette_to_grey(
    image: Image.Image, path: str, by_index: bool
) -> np.ndarray:
    """The greys it shows; or the indices, in the order of VOC alone."""
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
    # Programs that save a colour mask with few bits order the palette as
    # they like: the index of the crack may be 0.
    others = palette[used[used > 0]].sum(axis=1)
    background_first = (palette[0].sum() < others).all()
    if not (is_grey or background_first or by_index):
        raise _has_colors(colors, path)
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
        lossy: Whether the file is JPEG, which may have few levels without
            being a label map.

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
    if found[-2] < 192:
        raise ValueError(
            f'{found[-1]} stands alone above {found[-2]}, as "ignore" does '
            'above labels; a compressed mask has several levels up there'
        )
    return levels > DEFAULT_THRESHOLD


def crack_share(label: np.ndarray) -> float:
    """Share of crack among the pixels of a label that count.

    Args:
        label: 0 background, 1 crack, 255 pixels to ignore.
    """
    counted = np.count_nonzero(label != 255)
    return float(np.count_nonzero(label == 1) / max(counted, 1))
