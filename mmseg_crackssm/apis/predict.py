"""Prediction: ``python -m mmseg_crackssm.apis.predict CONFIG CHECKPOINT
IMAGE_OR_FOLDER --out DIR``."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.utils import ProgressBar
from mmseg.models import BaseSegmentor

from mmseg_crackssm.engine.hooks.visualization_hook import (
    probability_to_uint16,
)
from mmseg_crackssm.visualization import draw_overlay, write_image

from .errors import UsageError, check_output_folder, run_cli
from .inference import (
    UNSOUND,
    check_settings,
    init_model,
    is_sound,
    predict_images,
    read_image,
)

IMAGE_SUFFIXES = frozenset(
    '.bmp .jpeg .jpg .jp2 .pbm .pgm .png .ppm .tif .tiff .webp'.split()
)
#: Tiles in which an image is tried that memory does not suffice for.
FALLBACK_TILE = 1024
#: Sub-folders of the outputs.
OUTPUT_KINDS = ('mask', 'probability', 'overlay')


@dataclass
class PredictionSummary:
    """What became of the files.

    Attributes:
        done: Files predicted.
        skipped: File -> why it could not be read or predicted.
        tiled: Those predicted in tiles for want of memory.
    """

    done: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    tiled: list[Path] = field(default_factory=list)


def find_images(source: Path, out: Path) -> dict[Path, str]:
    """Images to predict and the names of their outputs.

    Args:
        source: An image, or a folder that is searched with its sub-folders.
        out: Folder of the outputs; it may be ``source`` or hold it. Its
            sub-folders of results are not searched.

    Returns:
        File -> name of its outputs, relative, with ``.png``. It is the
        file's own; where files differ in suffix alone, the suffix is kept in
        the name, so that none overwrites another.

    Raises:
        FileNotFoundError: If ``source`` does not exist or has no image.
    """
    if source.is_file():
        return {source: f'{source.stem}.png'}
    if not source.is_dir():
        raise FileNotFoundError(
            f'{str(source)!r} does not exist: give an image or a folder'
        )
    results = [out.resolve() / kind for kind in OUTPUT_KINDS]
    files = [
        path
        for path in sorted(source.rglob('*'))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith('.')
        and not any(path.resolve().is_relative_to(kind) for kind in results)
    ]
    if not files:
        raise FileNotFoundError(
            f'{str(source)!r} holds no image ('
            + ', '.join(sorted(IMAGE_SUFFIXES))
            + f') outside the results in {str(out)!r}'
        )
    stems = Counter(path.with_suffix('') for path in files)
    names: dict[Path, str] = {}
    taken = set()
    for path in files:
        relative = path.relative_to(source)
        name = relative.with_suffix('.png').as_posix()
        if stems[path.with_suffix('')] > 1:
            name = f'{relative.as_posix()}.png'
        while name in taken:
            name = f'{name}.png'
        taken.add(name)
        names[path] = name
    return names


def predict_files(
    model: BaseSegmentor,
    source: str | Path,
    out: str | Path,
    *,
    threshold: float | None = None,
    tile: int | None = None,
    batch: int = 1,
    progress: bool = False,
) -> PredictionSummary:
    """Predict an image or a folder of images into files.

    For each image ``out`` receives ``mask/<name>.png`` (0 and 255),
    ``probability/<name>.png`` (16-bit grey, probability times 65535) and
    ``overlay/<name>.png`` (cracks red over the image), in the image's size.
    Where memory does not suffice, an image is tried once more in tiles of
    1024 pixels, at its own size, and else skipped.

    Args:
        model: From :func:`init_model`.
        source: An image, or a folder that is searched with its sub-folders.
        out: Folder of the outputs.
        threshold: See :func:`predict_image`.
        tile: See :func:`predict_image`.
        batch: Most images per forward pass; images that follow each other
            share one if their sizes agree.
        progress: Show a progress bar on the standard error stream.

    Returns:
        What was done, and what was skipped.

    Raises:
        FileNotFoundError: If there is no image.
        UsageError: If ``out`` cannot be written or a setting makes no sense.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    names = _check_arguments(source, out, threshold, tile, batch)
    summary = PredictionSummary()
    bar = ProgressBar(len(names), file=sys.stderr) if progress else None
    predict = partial(predict_images, model, threshold=threshold)
    for paths, images in _batches(names, batch, summary, bar):
        predictions = _predict_batch(predict, paths, images, tile, summary)
        for path, image, item in zip(paths, images, predictions, strict=True):
            if item is not None and not is_sound(item):
                summary.skipped[path] = f'{path}: {UNSOUND}'
            elif item is not None:
                _write_prediction(out, names[path], image, item)
                summary.done.append(path)
            if bar:
                bar.update()
    if bar:
        sys.stderr.write('\n')
    return summary


def _check_arguments(
    source: Path,
    out: Path,
    threshold: float | None,
    tile: int | None,
    batch: int,
) -> dict[Path, str]:
    """What :func:`find_images` finds, once all arguments are sound."""
    if batch < 1:
        raise UsageError(f'batch must be at least 1, got {batch}')
    check_settings(threshold, tile)
    names = find_images(source, out)
    for kind in OUTPUT_KINDS:
        check_output_folder(out / kind, '--out')
    return names


def _predict_batch(
    predict: Callable,
    paths: list[Path],
    images: list[np.ndarray],
    tile: int | None,
    summary: PredictionSummary,
) -> list[dict[str, np.ndarray] | None]:
    """Predict a batch; where memory is short, each image alone, then tiled.

    Returns:
        None for an image that does not even fit so; it is noted as skipped.
    """
    found = _unless_out_of_memory(predict, images, tile)
    if found is not None:
        return found
    if len(images) > 1:
        return [
            _predict_batch(predict, [path], [image], tile, summary)[0]
            for path, image in zip(paths, images, strict=True)
        ]
    (path,), side = paths, FALLBACK_TILE
    if max(images[0].shape) > side and (tile is None or tile > side):
        found = _unless_out_of_memory(predict, images, side)
    if found is None:
        height, width = images[0].shape[:2]
        summary.skipped[path] = (
            f'{path}: memory does not suffice for {width} x {height} pixels; '
            f'try --tile with less than {min(side, tile or side)}'
        )
        return [None]
    summary.tiled.append(path)
    return found


def _unless_out_of_memory(
    predict: Callable, images: list[np.ndarray], tile: int | None
) -> list[dict[str, np.ndarray]] | None:
    """None if memory does not suffice; all that was taken is free again."""
    try:
        return predict(images, tile=tile)
    except MemoryError:
        pass
    except (RuntimeError, cv2.error) as error:
        if not re.search(
            "out of memory|can't allocate|insufficient memory",
            str(error),
            re.I,
        ):
            raise
    torch.cuda.empty_cache()
    return None


def _write_prediction(
    out: Path, name: str, image: np.ndarray, item: dict[str, np.ndarray]
) -> None:
    mask = item['mask']
    probability = probability_to_uint16(item['probability'])
    write_image(out / 'mask' / name, mask.astype(np.uint8) * 255)
    write_image(out / 'probability' / name, probability)
    write_image(out / 'overlay' / name, draw_overlay(image, mask))


def _batches(
    names: dict[Path, str],
    batch: int,
    summary: PredictionSummary,
    bar: ProgressBar | None,
) -> Iterator[tuple[list[Path], list[np.ndarray]]]:
    """Runs of readable images of one size; the others are noted."""
    paths: list[Path] = []
    images: list[np.ndarray] = []
    for path in names:
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            summary.skipped[path] = str(error)
            if bar:
                bar.update()
            continue
        if images and (len(images) == batch or image.shape != images[0].shape):
            yield paths, images
            paths, images = [], []
        paths.append(path)
        images.append(image)
    if images:
        yield paths, images


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of prediction."""
    parser = argparse.ArgumentParser(
        description='Find cracks in images: writes mask/ (0 and 255), '
        'probability/ (16-bit grey, 65535 is probability 1) and overlay/ as '
        'PNG, one each per image, under the names of the images'
    )
    parser.add_argument(
        'config', help='config file, or name of a shipped config'
    )
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'source', metavar='image_or_folder', help='searched with sub-folders'
    )
    parser.add_argument('--out', required=True, help='folder of the outputs')
    parser.add_argument(
        '--device', help='cpu, cuda:0, ...; by default the GPU if any'
    )
    parser.add_argument(
        '--threshold',
        type=float,
        help="probability above which a pixel is crack (default: the model's,"
        ' 0.5)',
    )
    parser.add_argument(
        '--tile',
        type=int,
        metavar='SIZE',
        help='predict in overlapping windows of SIZE pixels, at the size of '
        'the image, for large images',
    )
    parser.add_argument(
        '--batch', type=int, default=1, help='images per forward pass'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings to override, as key=value with dotted keys',
    )
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load a checkpoint that holds more than weights, which may run '
        'code: only for files whose source you trust',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 1 if nothing could be predicted.
    """
    return run_cli(partial(_predict, parse_args(argv)))


def _predict(args: argparse.Namespace) -> int:
    # What is wrong is said before the model is built.
    _check_arguments(
        Path(args.source).expanduser(),
        Path(args.out).expanduser(),
        args.threshold,
        args.tile,
        args.batch,
    )
    model = init_model(
        args.config,
        args.checkpoint,
        args.device,
        cfg_options=args.cfg_options,
        unsafe_load=args.unsafe_load,
    )
    summary = predict_files(
        model,
        args.source,
        args.out,
        threshold=args.threshold,
        tile=args.tile,
        batch=args.batch,
        progress=True,
    )
    lines = [
        f'{path}: not enough memory for the whole, predicted in tiles of '
        f'{FALLBACK_TILE}'
        for path in summary.tiled
    ]
    lines += [f'skipped {why}' for why in summary.skipped.values()]
    lines.append(
        f'{len(summary.done)} predicted, {len(summary.skipped)} skipped; '
        f'results in {args.out}'
    )
    text = '\n'.join(lines) + '\n'
    sys.stdout.write(text.encode('utf-8', 'backslashreplace').decode('utf-8'))
    return 0 if summary.done else 1


if __name__ == '__main__':
    sys.exit(main())
