"""Random crack geometry: fractal lines with width, depth and gaps."""

from typing import NamedTuple

import cv2
import numpy as np

# Fractional bits of OpenCV's fixed-point coordinates.
_SHIFT = 4


class CrackPath(NamedTuple):
    """One crack line, sampled about once per pixel.

    Attributes:
        points: Positions (n, 2) as x, y in pixels.
        radius: Half width (n,) in pixels.
        depth: Strength (n,) in 0..1; 0 where the crack is interrupted.
    """

    points: np.ndarray
    radius: np.ndarray
    depth: np.ndarray


def smooth_noise(
    rng: np.random.Generator, length: int, period: float
) -> np.ndarray:
    """Noise (length,) of about unit deviation, varying over ``period``."""
    knots = rng.standard_normal(max(int(length / period), 1) + 2)
    at = np.linspace(0, len(knots) - 1.001, length)
    low = at.astype(np.int64)
    frac = at - low
    frac = frac * frac * (3 - 2 * frac)
    return 1.2 * (knots[low] * (1 - frac) + knots[low + 1] * frac)


def fractal_line(
    rng: np.random.Generator,
    start: np.ndarray,
    end: np.ndarray,
    roughness: float,
    persistence: float,
) -> np.ndarray:
    """Midpoint displacement between two points, one point per pixel.

    Args:
        rng: Source of randomness.
        start: Position (2,) in pixels.
        end: Position (2,) in pixels.
        roughness: Displacement of the first midpoint over the length.
        persistence: Factor on the displacement when the step halves; 0.5
            gives a smooth curve, 0.7 a jagged one.

    Returns:
        Points (n, 2) of float64.
    """
    length = float(np.hypot(*(end - start)))
    levels = max(int(np.ceil(np.log2(max(length, 4.0) / 2.0))), 1)
    points = np.stack([start, end]).astype(np.float64)
    amplitude = roughness * length
    for _ in range(levels):
        middle = (points[:-1] + points[1:]) / 2
        middle += amplitude * rng.uniform(-1, 1, size=middle.shape)
        merged = np.empty((2 * len(points) - 1, 2))
        merged[::2], merged[1::2] = points, middle
        points = merged
        amplitude *= persistence
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.arange(0.0, max(along[-1], 1.0), 1.0)
    return np.stack(
        [np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1
    )


def make_path(
    rng: np.random.Generator,
    start: np.ndarray,
    end: np.ndarray,
    radius: float,
    *,
    taper: tuple[bool, bool] = (False, False),
    gaps: float = 0.0,
    roughness: float | None = None,
) -> CrackPath:
    """A crack between two points.

    Args:
        rng: Source of randomness.
        start: Position (2,) in pixels.
        end: Position (2,) in pixels.
        radius: Mean half width in pixels.
        taper: Whether the crack thins out towards start and end.
        gaps: Interruptions per 100 pixels.
        roughness: See :func:`fractal_line`; drawn if None.
    """
    if roughness is None:
        roughness = rng.uniform(0.04, 0.16)
    points = fractal_line(
        rng=rng,
        start=start,
        end=end,
        roughness=roughness,
        persistence=rng.uniform(0.48, 0.66),
    )
    n = len(points)
    # The crack runs around the stones: a zigzag of their size.
    zigzag = rng.uniform(0.2, 1.3)
    period = rng.uniform(3, 9)
    for axis in (0, 1):
        points[:, axis] += zigzag * smooth_noise(rng, n, period)
    width = radius * np.exp(
        0.3 * smooth_noise(rng, n, 25) + 0.25 * smooth_noise(rng, n, 5)
    )
    depth = 0.85 + 0.18 * smooth_noise(rng, n, 30)
    fade = min(n, rng.uniform(25, 80))
    ramp = np.arange(n) / fade
    for at_end, wanted in enumerate(taper):
        if wanted:
            side = np.minimum(ramp[::-1] if at_end else ramp, 1.0)
            width *= 0.4 + 0.6 * side
            depth *= 0.45 + 0.55 * side
    depth = depth.clip(0.45, 1.0)
    for _ in range(rng.poisson(gaps * n / 100)):
        at = rng.integers(n)
        depth[at : at + int(rng.uniform(3, 14))] *= rng.uniform(0, 0.4)
    return CrackPath(points, width.clip(0.35, 4.5), depth)


def _on_border(
    rng: np.random.Generator, size: tuple[int, int], side: int
) -> np.ndarray:
    """A point just outside one of the four sides (0 top, clockwise)."""
    height, width = size
    along = rng.uniform(-0.05, 1.05)
    margin = 4.0
    return np.array(
        [
            (along * width, -margin),
            (width + margin, along * height),
            (along * width, height + margin),
            (-margin, along * height),
        ][side]
    )


def _long_crack(
    rng: np.random.Generator, size: tuple[int, int], radius: float, gaps: float
) -> CrackPath:
    """A crack that crosses the image, or starts or ends within it."""
    side = int(rng.integers(4))
    start = _on_border(rng, size, side)
    # The opposite side most often; else one of the two neighbours.
    step = rng.choice([2, 1, 3], p=[0.7, 0.15, 0.15])
    end = _on_border(rng, size, int((side + step) % 4))
    taper = [False, False]
    if rng.random() < 0.3:
        end = start + (end - start) * rng.uniform(0.35, 0.85)
        taper[1] = True
        if rng.random() < 0.3:
            start = start + (end - start) * rng.uniform(0.15, 0.4)
            taper[0] = True
    return make_path(
        rng=rng,
        start=start,
        end=end,
        radius=radius,
        taper=(taper[0], taper[1]),
        gaps=gaps,
    )


def _branches(
    rng: np.random.Generator,
    trunk: CrackPath,
    size: tuple[int, int],
    count: int,
    gaps: float,
) -> list[CrackPath]:
    """Side cracks that leave ``trunk`` at random points."""
    paths = []
    n = len(trunk.points)
    for _ in range(count):
        at = int(rng.integers(n // 8, max(n - n // 8, n // 8 + 1)))
        before = trunk.points[max(at - 10, 0)]
        after = trunk.points[min(at + 10, n - 1)]
        heading = np.arctan2(*(after - before)[::-1])
        heading += rng.choice([-1, 1]) * rng.uniform(0.4, 1.5)
        length = rng.uniform(0.12, 0.7) * min(size)
        start = trunk.points[at]
        end = start + length * np.array([np.cos(heading), np.sin(heading)])
        paths.append(
            make_path(
                rng=rng,
                start=start,
                end=end,
                radius=float(trunk.radius.mean()) * rng.uniform(0.5, 0.9),
                taper=(False, True),
                gaps=gaps,
            )
        )
    return paths


def _network(
    rng: np.random.Generator, size: tuple[int, int], radius: float, gaps: float
) -> list[CrackPath]:
    """Alligator cracking: the edges of Voronoi cells in part of the image."""
    height, width = size
    cell = rng.uniform(0.14, 0.34) * min(size)
    region = rng.uniform(0.35, 1.1, size=2) * (width, height)
    corner = rng.uniform(0, 1, size=2) * np.maximum(
        np.array([width, height]) - region, 0
    )
    counts = np.maximum(np.round(region / cell).astype(int), 2)
    grid = np.stack(
        np.meshgrid(np.arange(counts[0]), np.arange(counts[1])), axis=-1
    ).reshape(-1, 2)
    seeds = corner + (grid + rng.uniform(0.1, 0.9, size=grid.shape)) * cell
    reach = 4 * max(height, width)
    subdiv = cv2.Subdiv2D((-reach, -reach, 3 * reach, 3 * reach))
    for x, y in seeds:
        subdiv.insert((float(x), float(y)))
    facets, _ = subdiv.getVoronoiFacetList([])
    low, high = corner - cell, corner + region + cell
    edges = {}
    for facet in facets:
        for a, b in zip(facet, np.roll(facet, -1, axis=0), strict=True):
            key = tuple(sorted((tuple(a.round(1)), tuple(b.round(1)))))
            edges.setdefault(key, (a, b))
    keep = rng.uniform(0.6, 0.95)
    paths = []
    for a, b in edges.values():
        inside = all((low <= p).all() and (p <= high).all() for p in (a, b))
        if not inside or rng.random() > keep or np.hypot(*(b - a)) < 4:
            continue
        paths.append(
            make_path(
                rng=rng,
                start=a.astype(np.float64),
                end=b.astype(np.float64),
                radius=radius * rng.uniform(0.55, 1.1),
                gaps=gaps,
                roughness=rng.uniform(0.05, 0.15),
            )
        )
    return paths


def random_cracks(
    rng: np.random.Generator, size: tuple[int, int]
) -> list[CrackPath]:
    """The cracks of one image: single, several, branching or a network.

    Args:
        rng: Source of randomness.
        size: Height and width in pixels.
    """
    radius = float(np.exp(rng.normal(np.log(0.9), 0.4)).clip(0.45, 3.0))
    gaps = rng.uniform(0, 1.5) if rng.random() < 0.5 else 0.0
    kind = rng.choice(4, p=[0.45, 0.13, 0.3, 0.12])
    if kind == 3:
        paths = _network(rng, size, radius, gaps)
        # All cells may lie too close to the border of the region.
        if paths:
            return paths
    count = int(rng.integers(2, 4)) if kind == 1 else 1
    paths = [
        _long_crack(rng, size, radius * rng.uniform(0.8, 1.2), gaps)
        for _ in range(count)
    ]
    if kind == 2:
        paths += _branches(
            rng=rng,
            trunk=paths[0],
            size=size,
            count=int(rng.integers(1, 5)),
            gaps=gaps,
        )
    return paths


def draw_paths(
    paths: list[CrackPath],
    size: tuple[int, int],
    *,
    widen: float = 0.0,
    use_depth: bool = True,
) -> np.ndarray:
    """Render cracks as strokes of varying width.

    Args:
        paths: The cracks.
        size: Height and width in pixels.
        widen: Added to every half width, in pixels.
        use_depth: Draw with the depth as intensity (the image), or fully
            (the mask).

    Returns:
        Strength (H, W), uint8 0..255, anti-aliased.
    """
    height, width = size
    canvas = np.zeros(size, dtype=np.uint8)
    scale = 1 << _SHIFT
    for points, radius, depth in paths:
        inside = (
            (points > -6.0).all(axis=1)
            & (points[:, 0] < width + 6.0)
            & (points[:, 1] < height + 6.0)
        )
        # Below half a pixel a stroke cannot get thinner, only fainter.
        radius = radius + widen
        level = 255.0 * (depth if use_depth else 1.0)
        level = level * np.minimum(radius / 0.5, 1.0)
        xy = np.round(points * scale).astype(np.int64)
        r = np.round(np.maximum(radius, 0.5) * scale).astype(np.int64)
        level = np.broadcast_to(level, r.shape).astype(np.int64)
        for at in np.flatnonzero(inside).tolist():
            cv2.circle(
                canvas,
                (int(xy[at, 0]), int(xy[at, 1])),
                int(r[at]),
                int(level[at]),
                -1,
                cv2.LINE_AA,
                _SHIFT,
            )
    return canvas
