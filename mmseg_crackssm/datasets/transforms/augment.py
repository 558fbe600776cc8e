"""Augmentations for crack images that mmcv and mmseg lack.

All draw from NumPy's global generator, which mmengine seeds per worker.
"""

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmseg.registry import TRANSFORMS


def _check_prob(prob: float) -> float:
    if not 0 <= prob <= 1:
        raise ValueError(f'prob must be in [0, 1], got {prob}')
    return prob


@TRANSFORMS.register_module()
class RandomDihedral(BaseTransform):
    """Apply one of the eight symmetries of the square, without resampling.

    A crack seen from above has no up and no left. mmseg's ``RandomFlip``
    gives the four of them that keep the axes, its ``RandomRotFlip`` never a
    pure rotation by 90 degrees.

    Modified Keys: img, img_shape, every key of seg_fields.

    Args:
        prob: Probability to draw one of the eight (the identity among
            them); otherwise the sample stays as it is.
    """

    def __init__(self, prob: float = 1.0) -> None:
        super().__init__()
        self.prob = _check_prob(prob)

    @cache_randomness
    def _draw(self) -> tuple[int, bool]:
        if np.random.rand() >= self.prob:
            return 0, False
        return int(np.random.randint(4)), bool(np.random.randint(2))

    def transform(self, results: dict) -> dict:
        """Turn image and label maps alike."""
        turns, mirror = self._draw()
        for key in ['img', *results.get('seg_fields', [])]:
            array = np.rot90(results[key], turns)
            if mirror:
                array = array[:, ::-1]
            results[key] = np.ascontiguousarray(array)
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class RandomCrackCrop(BaseTransform):
    """Crop at random, holding crack pixels with a given probability.

    Cracks cover one or two percent of an image, so that many plain crops
    hold none. With probability ``prob`` the crop is placed uniformly among
    those that contain one randomly chosen crack pixel; otherwise, and for
    images without crack, uniformly among all. An image smaller than the crop
    keeps its size along that side, as in mmseg's ``RandomCrop``.

    Modified Keys: img, img_shape, every key of seg_fields.

    Args:
        crop_size: Height and width, or one number for both.
        prob: Probability that the crop must hold crack pixels.
    """

    def __init__(
        self, crop_size: int | tuple[int, int], prob: float = 0.75
    ) -> None:
        super().__init__()
        if isinstance(crop_size, int):
            crop_size = (crop_size, crop_size)
        if len(crop_size) != 2 or min(crop_size) < 1:
            raise ValueError(
                'crop_size must be a positive number or (height, width), '
                f'got {crop_size}'
            )
        self.crop_size = tuple(crop_size)
        self.prob = _check_prob(prob)

    @cache_randomness
    def _draw(self, results: dict) -> tuple[int, int]:
        """Top and left of the crop."""
        shape = results['img'].shape[:2]
        limits = [
            max(side - crop, 0)
            for side, crop in zip(shape, self.crop_size, strict=True)
        ]
        ranges = [(0, limit) for limit in limits]
        if np.random.rand() < self.prob:
            crack = np.flatnonzero(results['gt_seg_map'] == 1)
            if crack.size:
                pixel = crack[np.random.randint(crack.size)]
                width = results['gt_seg_map'].shape[1]
                ranges = [
                    (max(0, at - size + 1), min(limit, at))
                    for at, size, limit in zip(
                        divmod(int(pixel), width),
                        self.crop_size,
                        limits,
                        strict=True,
                    )
                ]
        top, left = (np.random.randint(lo, hi + 1) for lo, hi in ranges)
        return int(top), int(left)

    def transform(self, results: dict) -> dict:
        """Crop image and label maps alike."""
        top, left = self._draw(results)
        height, width = self.crop_size
        for key in ['img', *results.get('seg_fields', [])]:
            results[key] = np.ascontiguousarray(
                results[key][top : top + height, left : left + width]
            )
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(crop_size={self.crop_size}, '
            f'prob={self.prob})'
        )
