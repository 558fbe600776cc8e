"""Cracks drawn over procedural pavement, without any file.

Serves the demo, the tests and pre-training. A sample is a function of its
index, the seed and the size alone.
"""

import cv2
import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from . import pavement
from .crack_dataset import CrackDataset
from .crack_paths import CrackPath, draw_paths, random_cracks

#: Share of images that no crack is drawn in.
CRACK_FREE = 0.07


def _as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(_is_count(side, least=32) for side in pair):
        raise ValueError(
            'size must be one whole number or (height, width), at least 32 '
            f'pixels, got {size!r}'
        )
    return int(pair[0]), int(pair[1])


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and value >= least


def _check_series(seed: int, clarity: float) -> None:
    if not _is_count(seed, least=0):
        raise ValueError(
            f'seed must be a whole number, 0 or above, got {seed!r}'
        )
    if not (isinstance(clarity, (int, float)) and 0 <= clarity <= 1):
        raise ValueError(f'clarity must be from 0 to 1, got {clarity!r}')


def _background(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Pavement without cracks.

    Returns:
        Grey image (H, W), the light (H, W) to multiply it with at the end,
        and the deviation of the texture, in grey levels.
    """
    grey = np.full(size, rng.normal(126, 16), dtype=np.float32).clip(75, 180)
    grain = pavement.texture(rng, size)
    for layer, prob in (
        (pavement.stains, 0.4),
        (pavement.spots, 0.35),
        (pavement.tyre_marks, 0.12),
        (pavement.patch_edge, 0.12),
        (pavement.joint, 0.1),
    ):
        if rng.random() < prob:
            grey = grey * layer(rng, size)
    if rng.random() < 0.06:
        layer, cover = pavement.sealed_crack(rng, size)
        grey, grain = grey * layer, grain * (1 - cover)
    if rng.random() < 0.1:
        cover, paint = pavement.lane_marking(rng, size)
        grey = grey + cover * (paint - grey)
        grain = grain * (1 - 0.6 * cover)
    light = 1 + rng.uniform(0.01, 0.06) * pavement.field(
        rng, size, rng.uniform(0.4, 1.2) * min(size)
    )
    if rng.random() < 0.1:
        light = light * pavement.shadow(rng, size)
    return grey + grain, light, float(grain.std())


def _strength(
    rng: np.random.Generator,
    paths: list[CrackPath],
    size: tuple[int, int],
    clarity: float,
) -> np.ndarray:
    """Depth of the cracks (H, W) in 0..1 with ragged edges and fillings."""
    strength = draw_paths(paths, size)
    # Stones at the rim make the edge ragged: shift pixels by fine noise.
    ragged = rng.uniform(0.3, 1.3) * (1 - 0.7 * clarity)
    y, x = np.indices(size, dtype=np.float32)
    period = rng.uniform(2.0, 4.0)
    strength = cv2.remap(
        strength,
        x + ragged * pavement.field(rng, size, period),
        y + ragged * pavement.field(rng, size, period),
        cv2.INTER_LINEAR,
    )
    strength = strength.astype(np.float32) / 255
    # Sand and stones lie in the crack.
    filling = rng.uniform(0.05, 0.35)
    return strength * (
        1 - filling * pavement.field(rng, size, rng.uniform(1.5, 6)).clip(0, 2)
    ).clip(0.2, 1)


def _annotate(
    rng: np.random.Generator,
    paths: list[CrackPath],
    size: tuple[int, int],
    clarity: float,
) -> np.ndarray:
    """The mask (H, W) of 0 and 1 as a person draws it.

    A little wider than the crack and a little beside it, without its finest
    wiggles, and straight on over short interruptions.
    """
    drawn = []
    slack = 0.75 + (1 - clarity) * rng.uniform(-0.2, 0.2)
    for points, radius, depth in paths:
        n = len(points)
        smooth = min(5, n)
        kernel = np.ones(smooth) / smooth
        edge = (smooth // 2, smooth - 1 - smooth // 2)
        centre = np.stack(
            [
                np.convolve(
                    np.pad(points[:, axis], edge, mode='edge'),
                    kernel,
                    mode='valid',
                )
                for axis in (0, 1)
            ],
            axis=1,
        )
        wobble = np.convolve(
            rng.normal(0, 0.6, size=(n + 7)), np.ones(8) / 8, mode='valid'
        ) * (1 - clarity)
        drawn.append(CrackPath(centre + wobble[:, None], radius, depth))
    canvas = draw_paths(drawn, size, widen=slack, use_depth=False)
    return (canvas > 127).astype(np.uint8)


def _camera(rng: np.random.Generator, img: np.ndarray) -> np.ndarray:
    """What lens, sensor and JPEG do: (H, W, 3) float32 to uint8."""
    if rng.random() < 0.4:
        img = cv2.GaussianBlur(img, (0, 0), rng.uniform(0.3, 0.8))
    noise = rng.standard_normal(img.shape[:2], dtype=np.float32)
    img = img + rng.uniform(0.5, 3.0) * noise[..., None]
    # Colour noise is coarser: sensors interpolate it, JPEG halves it.
    half = (img.shape[0] // 2 + 1, img.shape[1] // 2 + 1, 3)
    chroma = rng.standard_normal(half, dtype=np.float32)
    img += rng.uniform(0.5, 5.0) * cv2.resize(chroma, img.shape[1::-1])
    img = np.round(img.clip(0, 255)).astype(np.uint8)
    if rng.random() < 0.7:
        quality = int(rng.integers(55, 96))
        _, code = cv2.imencode(
            '.jpg', img, [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        img = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return img


def draw_crack(
    index: int,
    seed: int = 0,
    size: int | tuple[int, int] = 256,
    clarity: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one pavement image and its crack mask.

    Args:
        index: Number of the sample, 0 or above.
        seed: Number of the series, 0 or above.
        size: Side, or height and width, in pixels; at least 32.
        clarity: From 0, cracks as faint and labels as loose as in the
            benchmarks, to 1, dark cracks and exact labels, which a short
            training learns.

    Returns:
        The image (H, W, 3), uint8 BGR, and the mask (H, W), uint8 with 1 for
        crack. The same arguments give the same arrays, whatever was drawn
        before. 7 % of the images are drawn without a crack, and in a few
        more it lies outside the frame.

    Raises:
        ValueError: If an argument is out of its range.
    """
    size = _as_size(size)
    if not _is_count(index, least=0):
        raise ValueError(
            f'index must be a whole number, 0 or above, got {index!r}'
        )
    _check_series(seed, clarity)
    rng = np.random.default_rng([seed, index, *size])
    grey, light, grain = _background(rng, size)
    mask = np.zeros(size, dtype=np.uint8)
    img = grey[..., None]
    if rng.random() >= CRACK_FREE:
        paths = random_cracks(rng, size)
        strength = _strength(rng, paths, size, clarity=clarity)
        mask = _annotate(rng, paths, size, clarity=clarity)
        # Dark enough to be seen over the texture, wide cracks darker.
        radius = np.mean([path.radius.mean() for path in paths])
        share = rng.uniform(0.25, 0.6) + 0.1 * (radius - 1.0)
        # A line thinner than a pixel loses contrast in the pixels it meets.
        floor = (2.7 + 3.3 * clarity) * grain / max(float(grey.mean()), 1.0)
        floor /= np.clip(radius, 0.5, 1.0)
        share = float(np.clip(max(share, floor, 0.7 * clarity), 0.15, 0.9))
        if rng.random() < 0.2:  # spalled, paler rims
            rim = cv2.GaussianBlur(strength, (0, 0), rng.uniform(1.5, 3))
            img = img * (1 + rng.uniform(0.05, 0.25) * rim[..., None])
        # Soil in the crack gives it a brown tone (BGR).
        soil = rng.uniform(0, 0.25) if rng.random() < 0.4 else 0.0
        tone = 1 + soil * np.array([0.3, 0.0, -0.6], dtype=np.float32)
        img = img * (1 - share * strength[..., None] * tone)
    img = img * light[..., None] * pavement.color_cast(rng, size)
    return _camera(rng, img.astype(np.float32)), mask


@DATASETS.register_module()
class SyntheticCrackDataset(BaseSegDataset):
    """An endless supply of drawn cracks; needs no files.

    Samples carry ``img_path`` ('synthetic/<seed>/<index>', a name and no
    file), ``index``, ``seed``, ``size`` and ``clarity``;
    ``LoadSyntheticCrack`` as first transform draws them. Use another seed for
    validation than for training.

    Args:
        num_samples: Number of samples, i.e. indices 0..num_samples - 1.
        seed: Number of the series.
        size: Side, or height and width, in pixels.
        clarity: See :func:`draw_crack`.
        **kwargs: ``pipeline`` and the like, passed to ``BaseSegDataset``.

    Raises:
        ValueError: If an argument is out of its range.
    """

    METAINFO = CrackDataset.METAINFO

    def __init__(
        self,
        num_samples: int = 1000,
        seed: int = 0,
        size: int | tuple[int, int] = 256,
        clarity: float = 0.0,
        **kwargs,
    ) -> None:
        if not _is_count(num_samples, least=1):
            raise ValueError(
                'num_samples must be a whole number, at least 1, got '
                f'{num_samples!r}'
            )
        _check_series(seed, clarity)
        self.num_samples = num_samples
        self.seed = seed
        self.size = _as_size(size)
        self.clarity = clarity
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Name the samples; nothing is drawn yet."""
        return [
            dict(
                img_path=f'synthetic/{self.seed}/{index}',
                index=index,
                seed=self.seed,
                size=self.size,
                clarity=self.clarity,
                label_map=None,
                reduce_zero_label=False,
                seg_fields=[],
            )
            for index in range(self.num_samples)
        ]
