"""Procedural pavement: asphalt and concrete texture, and what lies on it.

All functions take and return float32 images; brightness is in grey levels
0..255, multiplicative layers are around 1.
"""

import cv2
import numpy as np


def field(
    rng: np.random.Generator, size: tuple[int, int], period: float
) -> np.ndarray:
    """Smooth noise (H, W) of about unit deviation over ``period`` pixels."""
    # Slow noise needs no cubic interpolation at full resolution.
    step = 4 if period >= 16 else 1
    height, width = (-(-side // step) for side in size)
    period /= step
    rows = int(height / period) + 3
    cols = int(width / period) + 3
    knots = rng.standard_normal((rows, cols), dtype=np.float32)
    large = cv2.resize(
        knots,
        (max(int(cols * period), width), max(int(rows * period), height)),
        interpolation=cv2.INTER_CUBIC,
    )
    top = int(rng.integers(large.shape[0] - height + 1))
    left = int(rng.integers(large.shape[1] - width + 1))
    noise = 1.3 * large[top : top + height, left : left + width]
    if step > 1:
        noise = cv2.resize(noise, size[::-1])
    return noise


def _grain(
    rng: np.random.Generator, size: tuple[int, int], sigma: float
) -> np.ndarray:
    """White noise blurred to grains of ``sigma`` pixels, unit deviation."""
    noise = rng.standard_normal(size, dtype=np.float32)
    if sigma < 0.3:
        return noise
    noise = cv2.GaussianBlur(noise, (0, 0), sigma)
    return noise / max(float(cv2.meanStdDev(noise)[1][0, 0]), 1e-6)


def texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Grey texture (H, W) around 0: grains, relief, stones and pits."""
    fine = _grain(rng, size, rng.uniform(0.35, 0.7))
    coarse = _grain(rng, size, rng.uniform(0.7, 1.5))
    # Relief lit from one side: the difference of the height field.
    angle = rng.uniform(0, 2 * np.pi)
    shift = np.float32(
        [[1, 0, 1.2 * np.cos(angle)], [0, 1, 1.2 * np.sin(angle)]]
    )
    shifted = cv2.warpAffine(
        coarse, shift, size[::-1], borderMode=cv2.BORDER_REFLECT
    )
    relief = coarse - shifted
    weight = rng.uniform(0.1, 1.0, size=3)
    weight /= np.linalg.norm(weight)
    grey = weight[0] * fine + weight[1] * coarse + weight[2] * relief
    grey *= 1 + 0.2 * field(rng, size, min(size) / 2)
    level = float(np.exp(rng.normal(np.log(10.0), 0.4)).clip(3, 20))
    out = level * grey.astype(np.float32)
    # Bright stones and dark pits: the tails of a coarser noise.
    tail = _grain(rng, size, rng.uniform(0.5, 1.1))
    if rng.random() < 0.85:
        limit = rng.uniform(1.6, 2.8)
        out += rng.uniform(20, 70) * (tail - limit).clip(0, 1.2)
    if rng.random() < 0.85:
        limit = rng.uniform(1.5, 2.8)
        out -= rng.uniform(10, 45) * (-tail - limit).clip(0, 1.2)
    return out


def stains(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Irregular dark or pale patches, multiplicative (H, W)."""
    period = rng.uniform(0.12, 0.5) * min(size)
    noise = field(rng, size, period) + 0.4 * field(rng, size, period / 4)
    edge = rng.uniform(0.1, 0.8)
    cover = ((noise - rng.uniform(0.8, 2.0)) / edge).clip(0, 1)
    return 1 - rng.uniform(-0.12, 0.3) * cover


def spots(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Oil spots, chewing gum and small debris, multiplicative (H, W)."""
    layer = np.ones(size, dtype=np.float32)
    for _ in range(int(rng.integers(1, 9))):
        centre = (int(rng.integers(size[1])), int(rng.integers(size[0])))
        axes = rng.integers(1, max(min(size) // 24, 3), size=2)
        cv2.ellipse(
            layer,
            centre,
            (int(axes[0]), int(axes[1])),
            float(rng.uniform(0, 180)),
            0,
            360,
            float(1 - rng.uniform(-0.35, 0.5)),
            -1,
        )
    return cv2.GaussianBlur(layer, (0, 0), rng.uniform(0.5, 3.0))


def _distance(
    rng: np.random.Generator, size: tuple[int, int], bend: float
) -> np.ndarray:
    """Signed distance (H, W) in pixels from a random, slightly bent line."""
    height, width = size
    angle = rng.uniform(0, 2 * np.pi)
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    x = np.arange(width, dtype=np.float32)[None] - width / 2
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across, along = c * x + s * y, c * y - s * x
    offset = rng.uniform(-0.45, 0.45) * min(size)
    curve = bend * rng.uniform(-1, 1) / min(size)
    return across - np.float32(offset) + np.float32(curve) * along**2


def shadow(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A cast shadow with a soft or wavy edge, multiplicative (H, W)."""
    distance = _distance(rng, size, bend=0.5)
    if rng.random() < 0.5:
        distance = distance + rng.uniform(2, 15) * field(
            rng, size, rng.uniform(0.1, 0.4) * min(size)
        )
    edge = rng.uniform(0.7, 12)
    return 1 - rng.uniform(0.08, 0.45) * (distance / edge + 0.5).clip(0, 1)


def tyre_marks(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """One or two broad dark bands, multiplicative (H, W)."""
    distance = _distance(rng, size, bend=0.3)
    half = rng.uniform(0.03, 0.12) * min(size)
    if rng.random() < 0.5:
        distance = np.abs(distance) - rng.uniform(1.5, 3) * half
    band = (1.5 - np.abs(distance) / half).clip(0, 1)
    wear = (0.7 + 0.3 * field(rng, size, 9)).clip(0, 1)
    return 1 - rng.uniform(0.05, 0.3) * band * wear


def joint(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A construction joint or saw cut: a straight line, not a crack.

    Returns a multiplicative layer (H, W). Straightness and even width tell
    it from a crack.
    """
    distance = np.abs(_distance(rng, size, bend=0.0))
    half = rng.uniform(1.0, 4.0)
    line = ((half - distance) / 0.8 + 0.5).clip(0, 1)
    layer = 1 - rng.uniform(0.2, 0.6) * line
    if rng.random() < 0.5:
        lip = (1.2 - np.abs(distance - half - 1.5)).clip(0, 1)
        layer += rng.uniform(0.05, 0.15) * lip
    return layer


def sealed_crack(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A wide band of bitumen sealant, smooth and dark: not a crack.

    Returns:
        A multiplicative layer (H, W) and the share (H, W) of the texture
        that the band covers.
    """
    distance = _distance(rng, size, bend=0.4)
    distance = distance + rng.uniform(2, 8) * field(rng, size, 40)
    half = rng.uniform(6, 14)
    band = ((half - np.abs(distance)) / 1.5).clip(0, 1)
    return 1 - rng.uniform(0.3, 0.6) * band, 0.8 * band


def lane_marking(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """Worn paint: its cover (H, W) in 0..1 and its grey level."""
    distance = _distance(rng, size, bend=0.0)
    half = rng.uniform(0.06, 0.2) * min(size)
    band = ((half - np.abs(distance)) / 1.2).clip(0, 1)
    wear = 0.7 * field(rng, size, 6) + 0.7 * _grain(rng, size, 1.0)
    worn = (wear + rng.uniform(0.6, 2.5)).clip(0, 1)
    return band * worn, float(rng.uniform(175, 240))


def patch_edge(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Where two layers of asphalt meet: a step in brightness (H, W)."""
    distance = _distance(rng, size, bend=0.2)
    distance = distance + rng.uniform(0.5, 3) * field(rng, size, 12)
    step = (distance / rng.uniform(0.8, 3) + 0.5).clip(0, 1)
    return 1 - rng.uniform(-0.2, 0.25) * step


def color_cast(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Factors (H, W, 3) per channel BGR: white balance, and a slow drift."""
    base = 1 + rng.normal(0, 0.02, size=3)
    base += rng.normal(0.012, 0.045) * np.array([1.0, 0.1, -1.0])
    cast = np.broadcast_to(base.astype(np.float32), (*size, 3))
    if rng.random() < 0.5:
        drift = field(rng, size, rng.uniform(0.3, 1.0) * min(size))
        tint = rng.normal(0, 0.009, size=3).astype(np.float32)
        cast = cast + drift[..., None] * tint
    return cast
