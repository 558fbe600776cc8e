"""The orders in which a model's scans visit its feature maps."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn as nn
from mmseg.models import BaseSegmentor
from numpy.typing import NDArray
from torch import Tensor

from ..apis.errors import UsageError
from ..apis.inference import image_window, preprocess_images
from ..models.layers.das import DynamicAdaptiveScan
from ..models.layers.dpsm import DPSM, AdaptiveTokenReordering
from ..ops.scan_order import SNAKE_ORDERS, scan_order
from .scan_reads import Reads


class Frame(NamedTuple):
    """Where an image lies in the input of the network.

    Attributes:
        shape: Height and width of the input, padding among it, in pixels.
        rows: Rows of the input that hold the (resized) image.
        columns: Its columns.
    """

    shape: tuple[int, int]
    rows: slice
    columns: slice

    def place(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image as the network sees it, grey where it is padded.

        Args:
            image: uint8 (H, W, 3) of any size.

        Returns:
            uint8 (*shape, 3).
        """
        canvas = np.full((*self.shape, 3), 127, dtype=np.uint8)
        window = canvas[self.rows, self.columns]
        window[...] = cv2.resize(
            image, window.shape[1::-1], interpolation=cv2.INTER_AREA
        )
        return canvas


class LevelScan(NamedTuple):
    """How one feature map is scanned.

    Attributes:
        grid: Height h and width w of the map in tokens.
        sequences: Those that DPSM reads, one per crack direction: row-major
            indices (h * w,) in the order of the sequence, by name, 'ATR'
            (adaptive token reordering) or 'unsorted' and the direction.
            Empty for a model without DPSM.
    """

    grid: tuple[int, int]
    sequences: dict[str, NDArray[np.int64]]


class ModelScans(NamedTuple):
    """What one image makes of the scans of a model.

    Attributes:
        levels: The maps that DPSM scans, else all maps of the backbone.
        directions: Direction intensities F_dir (h, w) by crack direction,
            as logits; empty for a model without DPSM.
        reads: Of each layer with dynamic adaptive scan, in the order of the
            forward pass.
    """

    levels: list[LevelScan]
    directions: dict[str, NDArray[np.float32]]
    reads: list[Reads]

    @property
    def coarsest(self) -> int:
        """Number of the level with the fewest tokens, from 1."""
        sizes = [scan.grid[0] * scan.grid[1] for scan in self.levels]
        return sizes.index(min(sizes)) + 1


def fixed_orders(grid: tuple[int, int]) -> dict[str, NDArray[np.int64]]:
    """The orders that depend on the size of a map alone.

    Args:
        grid: Height h and width w in tokens.

    Returns:
        Row-major indices (h * w,) in the order of the sequence: the four
        sequences of 'cross', which begin with raster, and the four snakes.
    """
    rows, columns, rows_back, columns_back = scan_order('cross', *grid).numpy()
    return {
        'raster': rows,
        'raster_t': columns,
        'raster backwards': rows_back,
        'raster_t backwards': columns_back,
        **{name: scan_order(name, *grid).numpy() for name in SNAKE_ORDERS},
    }


def load_input(
    model: BaseSegmentor, image: NDArray[np.uint8]
) -> tuple[Tensor, Frame]:
    """One image as prediction would show it to the network, in one piece.

    Args:
        model: From :func:`~mmseg_crackssm.apis.inference.init_model`.
        image: BGR uint8 (H, W, 3).

    Returns:
        The input (1, 3, h, w), and where the image lies in it.

    Raises:
        UsageError: If the config has no test pipeline.
    """
    batch = preprocess_images(model, [image])
    shape = tuple(batch['inputs'].shape[-2:])
    meta = batch['data_samples'][0].metainfo
    return batch['inputs'], Frame(shape, *image_window(meta, shape))


@torch.no_grad()
def capture_scans(model: BaseSegmentor, inputs: Tensor) -> ModelScans:
    """Pass an image through a model and watch its scans.

    Args:
        model: A segmentor with a backbone. Of several DPSM the first counts.
        inputs: (1, 3, H, W), as of :func:`load_input`.

    Returns:
        The orders that this very pass used.

    Raises:
        UsageError: If there is no backbone, or it returns no maps.
    """
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        raise UsageError(
            f'{type(model).__name__} has no backbone, whose feature maps a '
            'scan would visit: give the config of an EncoderDecoder'
        )
    dpsm = next((x for x in model.modules() if isinstance(x, DPSM)), None)
    levels: list[LevelScan] = []
    reads: list[Reads] = []
    outputs: list[object] = []
    with ExitStack() as stack:
        watched = backbone if dpsm is None else dpsm
        handle = watched.register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )
        stack.callback(handle.remove)
        for level in () if dpsm is None else dpsm.levels:
            note = partial(_note_order, levels, level, dpsm.directions)
            stack.enter_context(_noted(level, 'token_order', note))
        inside = set() if dpsm is None else set(dpsm.modules())
        for name, layer in model.named_modules():
            if isinstance(layer, DynamicAdaptiveScan):
                note = partial(_note_offsets, reads, name, layer in inside)
                stack.enter_context(_noted(layer, 'offsets', note))
        model.extract_feat(inputs)
    if dpsm is None:
        return ModelScans(_levels_of(outputs[0]), {}, reads)
    direction_map = outputs[0][-1][0].float().cpu().numpy()
    names = zip(dpsm.directions, direction_map, strict=True)
    return ModelScans(levels, dict(names), reads)


@contextmanager
def _noted(
    module: nn.Module, method: str, note: Callable[..., None]
) -> Iterator[None]:
    """Note what a method returns, with its arguments behind.

    For what a module's forward computes and no hook would see, since it is
    no output of the module.
    """
    compute = getattr(module, method)

    def run(*args: object) -> Tensor:
        result = compute(*args)
        note(result, *args)
        return result

    setattr(module, method, run)
    try:
        yield
    finally:
        delattr(module, method)


def _note_order(
    levels: list[LevelScan],
    module: AdaptiveTokenReordering,
    directions: tuple[str, ...],
    order: Tensor,
    direction_map: Tensor,
    size: tuple[int, int],
) -> None:
    kind = 'ATR' if module.reorder else 'unsorted'
    names = [f'{kind} {direction}' for direction in directions]
    # (K, L) where nothing is sorted, else (1, K, L).
    found = order.flatten(0, -2).cpu().numpy()
    named = dict(zip(names, found, strict=True))
    levels.append(LevelScan((int(size[0]), int(size[1])), named))


def _note_offsets(
    reads: list[Reads],
    name: str,
    in_dpsm: bool,
    offsets: Tensor,
    query: Tensor,
) -> None:
    # (1, 2 * G, h, w).
    found = offsets[0].unflatten(0, (-1, 2)).float().cpu().numpy()
    reads.append(Reads(name, found, in_dpsm))


def _levels_of(output: object) -> list[LevelScan]:
    """The sizes of a backbone's maps."""
    maps = output if isinstance(output, (tuple, list)) else [output]
    found = [
        LevelScan(tuple(x.shape[-2:]), {})
        for x in maps
        if isinstance(x, Tensor) and x.ndim == 4
    ]
    if not found:
        kinds = ', '.join(type(x).__name__ for x in maps) or 'nothing'
        raise UsageError(
            'expected a backbone that returns feature maps (B, C, H, W), got '
            f'{kinds}: give the config of a segmentor with such a one'
        )
    return found
