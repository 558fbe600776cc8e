"""Augmentations for crack images that mmcv and mmseg lack.

All draw from NumPy's global generator, which mmengine seeds per worker.
"""

import cv2
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


@TRANSFORMS.register_module()
class RandomShadow(BaseTransform):
    """Darken one side of a random line, with a soft or a sharp edge.

    Shadow edges are the commonest thing that is long, thin, dark and no
    crack.

    Modified Keys: img.

    Args:
        prob: Probability of a shadow.
        strength: Range of the share of light taken away.
    """

    def __init__(
        self,
        prob: float = 0.2,
        strength: tuple[float, float] = (0.1, 0.45),
    ) -> None:
        super().__init__()
        if not 0 <= strength[0] <= strength[1] < 1:
            raise ValueError(
                f'strength must be a range within [0, 1), got {strength}'
            )
        self.prob = _check_prob(prob)
        self.strength = tuple(strength)

    @cache_randomness
    def _draw(self) -> tuple[float, ...] | None:
        if np.random.rand() >= self.prob:
            return None
        angle = np.random.uniform(0, 2 * np.pi)
        place, edge = np.random.uniform((-0.3, 0.5), (0.3, 12.0))
        return angle, place, edge, np.random.uniform(*self.strength)

    def transform(self, results: dict) -> dict:
        """Multiply the image by the shadow."""
        drawn = self._draw()
        if drawn is None:
            return results
        angle, place, edge, strength = drawn
        img = results['img']
        height, width = img.shape[:2]
        y = np.arange(height, dtype=np.float32)[:, None] - height / 2
        x = np.arange(width, dtype=np.float32)[None] - width / 2
        distance = np.cos(angle) * x + np.sin(angle) * y
        distance -= place * min(height, width)
        # Logistic edge, `edge` pixels wide; clipped so that exp stays finite.
        light = 1 - strength / (1 + np.exp(-(distance / edge).clip(-30, 30)))
        shaded = img.astype(np.float32) * light[..., None].astype(np.float32)
        if np.issubdtype(img.dtype, np.integer):
            shaded = np.round(shaded)
        results['img'] = shaded.astype(img.dtype)
        return results

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(prob={self.prob}, '
            f'strength={self.strength})'
        )


@TRANSFORMS.register_module()
class RandomBlurNoise(BaseTransform):
    """Blur as a moving or badly focused camera does, then add sensor noise.

    Modified Keys: img (uint8, or float in 0..255).

    Args:
        prob: Probability of each of the two, drawn independently.
        max_sigma: Largest standard deviation of the blur, in pixels.
        max_noise: Largest standard deviation of the noise, in grey levels.
    """

    def __init__(
        self,
        prob: float = 0.3,
        max_sigma: float = 1.2,
        max_noise: float = 8.0,
    ) -> None:
        super().__init__()
        if max_sigma <= 0 or max_noise <= 0:
            raise ValueError(
                'max_sigma and max_noise must be positive, got '
                f'{max_sigma} and {max_noise}'
            )
        self.prob = _check_prob(prob)
        self.max_sigma = max_sigma
        self.max_noise = max_noise

    @cache_randomness
    def _draw(self) -> tuple[float, float]:
        blur, noise = np.random.rand(2) < self.prob
        sigma, level = np.random.uniform(0.2, 1.0, size=2)
        return blur * sigma * self.max_sigma, noise * level * self.max_noise

    def transform(self, results: dict) -> dict:
        """Degrade the image."""
        sigma, level = self._draw()
        img = results['img']
        if sigma > 0:
            img = cv2.GaussianBlur(img, (0, 0), sigma)
        if level > 0:
            noise = np.random.standard_normal(img.shape).astype(np.float32)
            noisy = (img.astype(np.float32) + level * noise).clip(0, 255)
            if np.issubdtype(img.dtype, np.integer):
                noisy = np.round(noisy)
            img = noisy.astype(img.dtype)
        results['img'] = img
        return results

    def __repr__(self) -> str:
        return (
            f'{self.__class__.__name__}(prob={self.prob}, '
            f'max_sigma={self.max_sigma}, max_noise={self.max_noise})'
        )
