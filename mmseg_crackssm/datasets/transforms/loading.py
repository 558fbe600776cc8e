"""Masks of the crack benchmarks, read so that no mistake stays silent."""

import logging
from collections.abc import Sequence

import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmseg.registry import TRANSFORMS
from PIL import Image

from ..crack_dataset import printable
from ..mask_reading import (
    DEFAULT_THRESHOLD,
    INVERTED_SHARE,
    Mask,
    UnclearMaskError,
    crack_levels,
    crack_share,
    decode_mask,
    jpeg_orientation,
    list_values,
    match_colors,
    to_grey,
)


@TRANSFORMS.register_module()
class LoadCrackAnnotations(BaseTransform):
    """Load a crack mask as ``{0: background, 1: crack}``.

    mmseg's ``LoadAnnotations`` takes pixel values for class indices, so that
    255 in a 0/255 mask means "ignore" and training runs on nothing. Here the
    values are looked at. With no argument a mask must have one reading:

    ===================================  ====================================
    file                                 reading
    ===================================  ====================================
    all 0                                no crack
    0 and 1, also 1-bit                  1 is crack
    0 and 255 (0 and 65535 in 16 bit)    255 is crack
    grey levels around 0 and 255         above 127 is crack (JPEG-compressed
                                         or resized mask: a JPEG file, at
                                         least 8 levels, or several levels
                                         next to 255; at least two levels
                                         above 191; at most 10 % of the
                                         pixels within 64..191)
    RGB, the three channels equal        as its grey levels (channels that
                                         differ by up to 16 are averaged)
    palette of greys                     as the greys it shows
    palette with colours                 as its indices (VOC convention), if
                                         entry 0 is the darkest
    alpha constant or equal to the grey  alpha is dropped
    ===================================  ====================================

    Everything else raises ``ValueError`` naming the file and its values:
    label maps such as 0/1/2/3 or 0/1/255, a mask that is one non-zero value
    everywhere, photographs, colours, an alpha channel of its own. The
    arguments below then say what is meant. A mask that is more than half
    crack is logged once per transform, because it may be inverted.

    A sample without the key ``seg_map_path`` passes unchanged: so the same
    pipeline serves inference on images that have no mask.

    Required Keys:

    - seg_map_path (optional)
    - img_path, ori_shape (optional; if present the size is checked)

    Added Keys:

    - gt_seg_map (np.uint8, (H, W)): 0, 1, and 255 for ``ignore_values``.
    - seg_fields

    Args:
        threshold: Grey level above which a pixel is crack. Turns off the
            checks of the values, except that a 0/1 mask is refused, because
            it would be read as empty.
        crack_values: Values that mean crack; every other value is
            background. A 1-bit mask counts as 0/255, or as 0/1 if 1 is among
            them; a JPEG as 0/255 if they are one or both of these. A 0/1
            mask where 255 is crack is refused, and the reverse. Excludes
            ``threshold``.
        crack_colors: RGB colours that mean crack in a colour mask; every
            other colour is background. Excludes the two above. JPEG files
            are refused, since they do not keep colours.
        ignore_values: Values left out of loss and metrics (label 255).
        trust_orientation: Whether masks fit their images as these are
            loaded. Otherwise an image that is mirrored or turned by its EXIF
            orientation, where the sizes do not tell whether its mask was
            drawn before or after that, is refused (local JPEG files).
        backend_args: Arguments of the file backend.
    """

    def __init__(
        self,
        threshold: int | None = None,
        crack_values: Sequence[int] | None = None,
        crack_colors: Sequence[Sequence[int]] | None = None,
        ignore_values: Sequence[int] = (),
        trust_orientation: bool = False,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__()
        given = [
            name
            for name, value in (
                ('threshold', threshold),
                ('crack_values', crack_values),
                ('crack_colors', crack_colors),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise ValueError(
                'give one of threshold, crack_values and crack_colors, got '
                + ' and '.join(given)
            )
        if threshold is not None and not 0 <= threshold <= 254:
            raise ValueError(f'threshold must be in 0..254, got {threshold}')
        for name, values in (
            ('crack_values', crack_values),
            ('ignore_values', ignore_values),
        ):
            if values is not None and any(not 0 <= v <= 255 for v in values):
                raise ValueError(f'{name} must be in 0..255, got {values}')
        if crack_values is not None and not len(crack_values):
            raise ValueError('crack_values must name at least one value')
        both = set(crack_values or ()) & set(ignore_values)
        if both:
            raise ValueError(
                f'{sorted(both)} is in both crack_values and ignore_values'
            )
        if crack_colors is not None:
            if ignore_values:
                raise ValueError(
                    'ignore_values are grey levels and cannot be combined '
                    'with crack_colors'
                )
            if not len(crack_colors) or any(
                len(color) != 3 or any(not 0 <= c <= 255 for c in color)
                for color in crack_colors
            ):
                raise ValueError(
                    'crack_colors must be a list of RGB triples in 0..255, '
                    f'got {crack_colors}'
                )
        self.threshold = threshold
        self.crack_values = crack_values
        self.crack_colors = crack_colors
        self.ignore_values = tuple(ignore_values)
        self.trust_orientation = trust_orientation
        self.backend_args = backend_args
        self._warned_inverted = False

    @property
    def is_told_crack(self) -> bool:
        """Whether an argument names what is crack: masks of dark cracks are
        then no mistake."""
        return not (self.crack_values is None and self.crack_colors is None)

    def transform(self, results: dict) -> dict:
        """Add ``gt_seg_map`` to ``results``.

        Raises:
            FileNotFoundError: If the mask does not exist.
            ValueError: If it cannot be decoded, has no single reading or
                another size than its image, or may lie otherwise than it.
        """
        if 'seg_map_path' not in results:
            return results
        path = results['seg_map_path']
        mask = self._open(path)
        self._check_size(mask.image, results)
        label = self.read(mask, results)
        self._warn_if_inverted(label, path)
        results['gt_seg_map'] = label
        results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def read(self, mask: Mask, results: dict) -> np.ndarray:
        """The label of a mask that is decoded already, whatever its size.

        Args:
            mask: From :func:`~..mask_reading.decode_mask`.
            results: Its ``seg_map_path``, and the ``img_path`` of its image.

        Returns:
            (H, W): 0, 1, and 255 for pixels to ignore.

        Raises:
            ValueError: As :meth:`transform`, but for the size.
        """
        path = results['seg_map_path']
        if not (self.trust_orientation or mask.turned):
            self._check_orientation(mask.image, results)
        if self.crack_colors is None:
            return self._read_levels(mask, path)
        if mask.lossy:
            raise ValueError(
                f'the mask {printable(path)} is JPEG, which does not keep '
                'the colours that crack_colors names: export it as PNG'
            )
        return match_colors(mask.image, self.crack_colors)

    def _open(self, path: str) -> Mask:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'the mask {printable(path)} does not exist'
            ) from error
        return decode_mask(content, path)

    @staticmethod
    def _check_size(image: Image.Image, results: dict) -> None:
        shape = (image.height, image.width)
        expected = results.get('ori_shape')
        if expected is None or tuple(expected[:2]) == shape:
            return
        turned = tuple(expected[:2]) == shape[::-1]
        remedy = (
            'The two are turned by 90 degrees: the image probably carries '
            'an EXIF orientation that mmcv applies and the mask does not '
            "know. Load it with dict(type='LoadImageFromFile', "
            "color_type='color_ignore_orientation') or turn the mask"
            if turned
            else 'Pair them correctly or export the mask at the size of the '
            'image (an EXIF orientation in the image can also swap its '
            'height and width)'
        )
        raise ValueError(
            f'the mask {printable(results["seg_map_path"])} is {shape[0]} x '
            f'{shape[1]} (height x width) but its image '
            f'{printable(results.get("img_path", "?"))} is {expected[0]} x '
            f'{expected[1]}. {remedy}'
        )

    @staticmethod
    def _check_orientation(image: Image.Image, results: dict) -> None:
        """Refuse an image that may be turned away from its mask."""
        orientation = jpeg_orientation(str(results.get('img_path', '')))
        # A turn by 90 degrees shows in the size, unless that is square.
        if orientation == 1 or (
            orientation >= 5 and image.width != image.height
        ):
            return
        raise ValueError(
            f'the image {printable(results["img_path"])} carries the EXIF '
            f'orientation {orientation}, which mmcv applies, and its mask '
            f'{printable(results["seg_map_path"])} none, so that they may '
            'not lie alike. If masks were drawn on the pixels as stored, '
            "load images with dict(type='LoadImageFromFile', "
            "color_type='color_ignore_orientation'); if on images as viewers "
            'show them, they fit. Then say so: '
            'LoadCrackAnnotations(trust_orientation=True)'
        )

    def _levels_of(self, mask: Mask, path: str) -> np.ndarray:
        """The mask's levels, on the scale of the arguments."""
        values = self.crack_values
        grey = to_grey(mask.image, path, by_index=values is not None)
        # Viewers show the 1 of a 1-bit image as 255.
        if mask.image.mode == '1' and (
            self.threshold is not None
            or (values is not None and 255 in values and 1 not in values)
        ):
            grey = grey * 255
        found = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
        if not mask.lossy:
            self._refuse_emptied(set(found.tolist()), path)
        elif values is not None and {0, 255} >= {*values, *self.ignore_values}:
            grey = np.where(grey > DEFAULT_THRESHOLD, 255, 0)
        return grey

    def _refuse_emptied(self, found: set[int], path: str) -> None:
        """Refuse a 0/1 or 0/255 mask that the arguments misread as empty."""
        if found not in ({0, 1}, {0, 255}):
            return
        top = max(found)
        if self.threshold is not None and top <= self.threshold:
            given = f'at or below threshold={self.threshold}'
        elif (
            self.crack_values is not None
            and 256 - top in self.crack_values
            and not found & {*self.crack_values, *self.ignore_values}
        ):
            given = f'none of them in crack_values={list(self.crack_values)}'
        else:
            return
        raise UnclearMaskError(
            f'the mask {printable(path)} holds 0 and {top}, {given}, and '
            'would be read as empty',
            f'Leave the argument out (0/{top} is understood), add {top} to '
            'crack_values if it is crack, or to ignore_values',
        )

    def _read_levels(self, mask: Mask, path: str) -> np.ndarray:
        grey, lossy = self._levels_of(mask, path), mask.lossy
        histogram = np.bincount(grey.ravel(), minlength=256)
        ignored = np.zeros(256, dtype=bool)
        ignored[list(self.ignore_values)] = True
        found = np.flatnonzero(histogram)
        counted = np.where(ignored, 0, histogram)
        table = np.zeros(256, dtype=np.uint8)
        if self.crack_values is not None:
            table[list(self.crack_values)] = 1
        elif self.threshold is not None:
            table[self.threshold + 1 :] = 1
        else:
            try:
                table[crack_levels(histogram=counted, lossy=lossy)] = 1
            except ValueError as error:
                raise UnclearMaskError(
                    f'the mask {printable(path)} is ambiguous: it holds '
                    f'{list_values(found)}; {error}',
                    'Say what is crack: '
                    'LoadCrackAnnotations(crack_values=[...]) for labels, '
                    f'threshold={DEFAULT_THRESHOLD} for grey levels, '
                    'ignore_values=[...] for pixels to leave out',
                ) from None
        table[ignored] = 255
        return table[grey]

    def _warn_if_inverted(self, label: np.ndarray, path: str) -> None:
        if self._warned_inverted or self.is_told_crack:
            return
        share = crack_share(label)
        if share > INVERTED_SHARE:
            self._warned_inverted = True
            print_log(
                f'{share:.0%} of the mask {printable(path)} is crack. If '
                'cracks are dark in these masks, set crack_values=[0]; '
                'crack_values=[255] (or [1]) silences this',
                logger='current',
                level=logging.WARNING,
            )

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(threshold={self.threshold}, '
            f'crack_values={self.crack_values}, '
            f'crack_colors={self.crack_colors}, '
            f'ignore_values={self.ignore_values}, '
            f'trust_orientation={self.trust_orientation}, '
            f'backend_args={self.backend_args})'
        )
