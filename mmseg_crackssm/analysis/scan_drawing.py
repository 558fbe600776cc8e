"""Pictures and animations of where a scan goes over an image."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..apis.errors import UsageError

#: Longer side of a panel, in its pixels.
PANEL_SIZE = 960
#: Colours of the sequence position, from the first token to the last.
POSITION_COLORS = 'turbo'
#: Opacity of steps to tokens that are not near, which may cover everything.
JUMP_OPACITY = 0.3
#: How far the image is faded to white under the path.
FADING = 0.35
FRAMES_PER_SECOND = 12
#: Coordinates are given to OpenCV in 1 / 2**SHIFT of a pixel.
SHIFT = 4


def token_points(
    order: NDArray[np.int64], grid: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Where the tokens of a sequence are.

    Args:
        order: Row-major indices (L,) in the order of the sequence.
        grid: Height h and width w of the feature map in tokens.
        shape: Height and width of the image in pixels, over which the tokens
            are spread evenly.

    Returns:
        Centres (x, y) in pixels, (L, 2), in the order of the sequence.
    """
    rows, columns = np.divmod(order, grid[1])
    return np.stack(
        [
            (columns + 0.5) * shape[1] / grid[1],
            (rows + 0.5) * shape[0] / grid[0],
        ],
        axis=1,
    )


def neighbour_reach(grid: tuple[int, int], shape: tuple[int, int]) -> float:
    """Longest step in pixels between two tokens that are 8-neighbours.

    Args:
        grid: As of :func:`token_points`.
        shape: As of :func:`token_points`.
    """
    return float(np.hypot(shape[0] / grid[0], shape[1] / grid[1]))


class ScanPath(NamedTuple):
    """What is drawn of a sequence.

    Attributes:
        points: (x, y) in pixels of the image, (L, 2), in the order of the
            sequence; they need not lie on a grid.
        reach: Steps longer than this many pixels are drawn thin and faint.
    """

    points: NDArray
    reach: float


class PathPanel:
    """A path that grows over an image.

    Args:
        image: RGB uint8 (H, W, 3).
        path: The path.
    """

    def __init__(self, image: NDArray[np.uint8], path: ScanPath) -> None:
        # Slow to import, and only needed here.
        from matplotlib import colormaps

        scale = PANEL_SIZE / max(image.shape[:2])
        size = [max(round(x * scale), 1) for x in image.shape[1::-1]]
        shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        self._image = cv2.addWeighted(
            shown, 1 - FADING, np.full_like(shown, 255), FADING, 0
        )
        self._jumps = self._image.copy()
        self._steps = np.zeros_like(shown)
        self._covered = np.zeros(shown.shape[:2], dtype=np.uint8)
        points, reach = path
        steps = np.hypot(*np.diff(points, axis=0).T)
        self._near = steps <= reach * (1 + 1e-6)
        self._points = points * scale
        self._dot = max(reach * scale / 9, 1.0)
        position = np.linspace(0, 1, len(points))
        colors = colormaps[POSITION_COLORS](position, bytes=True)
        self._colors = colors[:, :3].tolist()
        self._drawn = 0

    def grow(self, stop: int) -> None:
        """Draw the path as far as its first ``stop`` tokens."""
        for index in range(self._drawn, min(stop, len(self._points))):
            self._paint_token(index)
            if index:
                self._paint_step(index - 1, index)
        self._drawn = max(self._drawn, stop)

    def _paint_token(self, index: int) -> None:
        for layer, color in (
            (self._steps, self._colors[index]),
            (self._covered, 1),
        ):
            _disc(layer, self._points[index], self._dot, color)

    def _paint_step(self, first: int, last: int) -> None:
        ends = [_fixed_point(self._points[i]) for i in (first, last)]
        color = self._colors[last]
        if not self._near[first]:
            width = max(round(self._dot / 4), 1)
            cv2.line(self._jumps, *ends, color, width, cv2.LINE_AA, SHIFT)
            return
        width = max(round(self._dot), 1)
        cv2.line(self._steps, *ends, color, width, cv2.LINE_8, SHIFT)
        cv2.line(self._covered, *ends, 1, width, cv2.LINE_8, SHIFT)

    def render(self) -> NDArray[np.uint8]:
        """The panel as it is now, with marks at start and head of the path.

        Returns:
            RGB uint8, its longer side ``PANEL_SIZE``.
        """
        out = cv2.addWeighted(
            self._jumps, JUMP_OPACITY, self._image, 1 - JUMP_OPACITY, 0
        )
        covered = self._covered.astype(bool)
        out[covered] = self._steps[covered]
        if self._drawn:
            head = min(self._drawn, len(self._points)) - 1
            for index, draw in ((0, _disc), (head, _square)):
                self._mark(out, index, draw)
        return out

    def _mark(
        self, image: NDArray[np.uint8], index: int, draw: Callable
    ) -> None:
        """Draw a mark at a token, whole even at the border."""
        radius = PANEL_SIZE / 64
        size = np.array(image.shape[1::-1])
        at = np.clip(
            self._points[index], radius, np.maximum(size - radius, radius)
        )
        for part, color in (
            (1.0, (255, 255, 255)),
            (0.8, (0, 0, 0)),
            (0.55, self._colors[index]),
        ):
            draw(image, at, radius * part, color)


def _fixed_point(point: NDArray) -> tuple[int, int]:
    return tuple(np.rint((point - 0.5) * 2**SHIFT).astype(int).tolist())


def _disc(
    image: NDArray, point: NDArray, radius: float, color: object
) -> None:
    at, size = _fixed_point(point), round(radius * 2**SHIFT)
    cv2.circle(image, at, size, color, -1, cv2.LINE_8, SHIFT)


def _square(
    image: NDArray, point: NDArray, radius: float, color: object
) -> None:
    corners = (_fixed_point(point - radius), _fixed_point(point + radius))
    cv2.rectangle(image, *corners, color, -1, cv2.LINE_8, SHIFT)


class ScanFigure:
    """Panels of paths, and of direction intensities below.

    Args:
        image: RGB uint8 (H, W, 3).
        paths: Rows of panels, by title.
        maps: A last row of panels: by title, intensities (h, w).
        title: Above all panels.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        paths: Sequence[dict[str, ScanPath]],
        maps: dict[str, NDArray],
        title: str,
    ) -> None:
        # Slow to import, and only needed here.
        from matplotlib.cm import ScalarMappable
        from matplotlib.figure import Figure

        paths = [row for row in paths if row]
        rows = [*paths, maps] if maps else paths
        columns = max(len(row) for row in rows)
        aspect = image.shape[0] / image.shape[1]
        self._figure = Figure(
            figsize=(4 * columns + 1, (4 * aspect + 0.3) * len(rows) + 0.6),
            layout='constrained',
        )
        axes = self._figure.subplots(len(rows), columns, squeeze=False)
        for cell in axes.flat:
            cell.set_axis_off()
        self._panels = []
        for line, row in zip(axes, paths, strict=False):
            for cell, (name, path) in zip(line, row.items(), strict=False):
                panel = PathPanel(image, path)
                cell.set_title(name, fontsize=14)
                shown = cell.imshow(panel.render())
                self._panels.append((panel, len(path.points), shown))
        for cell, (name, values) in zip(axes[-1], maps.items(), strict=False):
            low, high = values.min(), values.max()
            cell.set_title(f'{name}: {low:.2f} to {high:.2f}', fontsize=14)
            height, width = image.shape[:2]
            cell.imshow(values, cmap='gray', extent=(0, width, height, 0))
        bar = self._figure.colorbar(
            ScalarMappable(cmap=POSITION_COLORS),
            ax=axes[: len(paths)],
            shrink=0.7,
            aspect=40,
            pad=0.01,
            ticks=[0, 1],
        )
        bar.ax.set_yticklabels(['first', 'last'], fontsize=12)
        bar.set_label('position in the sequence', fontsize=12)
        self._figure.suptitle(
            f'{title}\ndisc: start, square: end of the sequence',
            fontsize=14,
            parse_math=False,
        )

    def grow(self, part: float) -> None:
        """Draw all paths as far as a part of their tokens, in [0, 1]."""
        for panel, length, shown in self._panels:
            panel.grow(round(part * length))
            shown.set_data(panel.render())

    def save(self, path: Path) -> None:
        """Write the whole paths as an image in the format of the suffix."""
        self.grow(1)
        self._figure.savefig(path, dpi=120)

    def frames(
        self, count: int, progress: Iterable[int] | None = None
    ) -> Iterator[NDArray[np.uint8]]:
        """The growing paths; to be taken before :meth:`save`.

        Args:
            count: Number of frames; the last shows the whole paths.
            progress: The numbers from 1 to ``count``, for a progress bar.

        Yields:
            RGB uint8 (H, W, 3) with even H and W, as videos need them.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(self._figure)
        self._figure.set_dpi(72)
        # What takes most of the time, and stays the same.
        canvas.draw()
        self._figure.set_layout_engine('none')
        for number in progress or range(1, count + 1):
            self.grow(number / count)
            canvas.draw()
            frame = np.asarray(canvas.buffer_rgba())[..., :3]
            height, width = (x // 2 * 2 for x in frame.shape[:2])
            yield frame[:height, :width].copy()


def write_animation(path: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    """Write frames as an animated GIF or an MP4 video.

    The last frame stays for two seconds.

    Args:
        path: The file, with suffix .gif or .mp4.
        frames: RGB uint8 (H, W, 3), all of one even H and W; at least one.

    Raises:
        UsageError: If OpenCV cannot write MP4 here.
    """
    write = {'.gif': _write_gif, '.mp4': _write_mp4}[path.suffix]
    write(path, frames)


def _write_gif(path: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    frames = list(frames)
    # One palette of the last frame, which has all colours: smaller files, and
    # no flicker.
    last = Image.fromarray(frames[-1]).quantize(256)
    images = [
        Image.fromarray(x).quantize(palette=last, dither=Image.Dither.NONE)
        for x in frames
    ]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[1000 // FRAMES_PER_SECOND] * (len(images) - 1) + [2000],
        loop=0,
    )


def _write_mp4(path: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    # OpenCV takes no file name in another encoding than UTF-8.
    with TemporaryDirectory() as folder:
        written = Path(folder) / 'scan.mp4'
        _encode_mp4(written, iter(frames))
        shutil.move(written, path)


def _encode_mp4(path: Path, frames: Iterator[NDArray[np.uint8]]) -> None:
    frame = next(frames)
    writer = cv2.VideoWriter(
        str(path),
        cv2.VideoWriter_fourcc(*'mp4v'),
        FRAMES_PER_SECOND,
        frame.shape[1::-1],
    )
    try:
        if not writer.isOpened():
            raise UsageError(
                'this OpenCV cannot write MP4: give --animate gif'
            )
        writer.write(frame[..., ::-1])
        for frame in frames:
            writer.write(frame[..., ::-1])
        for _ in range(2 * FRAMES_PER_SECOND):
            writer.write(frame[..., ::-1])
    finally:
        writer.release()
