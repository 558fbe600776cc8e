"""Where a scan goes, and how near it brings the tokens of a crack:
``python -m mmseg_crackssm.analysis.show_scan CONFIG [CHECKPOINT] IMAGE``."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmseg.models import BaseSegmentor
from numpy.typing import NDArray
from prettytable import PrettyTable

from ..apis.errors import (
    UsageError,
    check_output_file,
    check_output_folder,
    run_cli,
)
from ..apis.inference import init_model, read_image
from ..datasets.crack_dataset import COMMON_SUFFIXES, list_names, printable
from ..datasets.file_names import files_by_name
from ..datasets.mask_reading import UnclearMaskError
from ..datasets.transforms import LoadCrackAnnotations
from ..utils.progress import track
from .scan_capture import (
    ModelScans,
    capture_scans,
    fixed_orders,
    load_input,
)
from .scan_distance import DistanceSum, LevelDistances, crack_tokens
from .scan_drawing import (
    ScanFigure,
    neighbour_reach,
    token_points,
    write_animation,
)

#: Number of sequences of 'cross', with which the fixed orders begin.
CROSS = 4


def pair_labels(
    images: Path, labels: Path, label_suffix: Sequence[str] = COMMON_SUFFIXES
) -> list[tuple[Path, Path]]:
    """Pair images and masks by stem, sub-folders being part of it.

    Args:
        images: Folder of images.
        labels: Folder of masks.
        label_suffix: Endings that a mask's name has beyond its image's stem.

    Returns:
        Image and mask, in the order of the names.

    Raises:
        FileNotFoundError: If a folder is missing.
        UsageError: If names do not pair; tells which.
    """
    clash = 'have the same stem: keep one of them'
    found = files_by_name(images, COMMON_SUFFIXES, clash=clash)
    masks = files_by_name(labels, label_suffix, clash=clash)
    problems = ' and '.join(
        f'{len(alone)} {what} ({list_names(sorted(alone))})'
        for what, alone in (
            ('images without mask', found.keys() - masks.keys()),
            ('masks without image', masks.keys() - found.keys()),
        )
        if alone
    )
    if problems or not found:
        raise UsageError(
            f'{problems or "no image"} in {printable(images)} and '
            f'{printable(labels)}: expected one mask of the same stem for '
            'each image. Give what the names of masks end in, e.g. '
            '--label-suffix _mask.png, or move the others away'
        )
    return [(path, masks[name]) for name, path in found.items()]


def read_pair(
    image: Path, label: Path
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read an image and its mask.

    Returns:
        BGR uint8 (H, W, 3); and (H, W), 1 being crack.

    Raises:
        UsageError: If one cannot be read, or their sizes differ.
    """
    try:
        array = read_image(image)
        results = LoadCrackAnnotations().transform(
            {
                'img_path': str(image),
                'seg_map_path': str(label),
                'ori_shape': array.shape[:2],
            }
        )
    except UnclearMaskError as error:
        raise UsageError(
            f'{error.reason}. Convert the masks to 0 (background) and 255 '
            '(crack)'
        ) from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    return array, results['gt_seg_map']


def pick_level(scans: ModelScans, level: int | None) -> int:
    """The number of the level to show, from 1; by default the coarsest.

    Raises:
        UsageError: If there is no such level.
    """
    if level is None:
        return scans.coarsest
    if not 1 <= level <= len(scans.levels):
        sizes = ', '.join(
            f'{number} ({scan.grid[0]} x {scan.grid[1]} tokens)'
            for number, scan in enumerate(scans.levels, 1)
        )
        raise UsageError(f'--level {level}: expected one of {sizes}')
    return level


def make_figure(
    model: BaseSegmentor,
    image: NDArray[np.uint8],
    level: int | None = None,
    title: str = '',
) -> ScanFigure:
    """Draw the scans of one image.

    Args:
        model: From :func:`~mmseg_crackssm.apis.inference.init_model`.
        image: BGR uint8 (H, W, 3).
        level: As of :func:`pick_level`.
        title: Above all panels, before the level and its size.

    Returns:
        The figure, its paths not yet drawn.

    Raises:
        UsageError: As :func:`~.scan_capture.capture_scans`, or if there is
            no such level.
    """
    inputs, frame = load_input(model, image)
    scans = capture_scans(model, inputs)
    level = pick_level(scans, level)
    grid, sequences = scans.levels[level - 1]
    fixed = list(fixed_orders(grid).items())
    cross = [
        (f'cross {number}: {name}', order)
        for number, (name, order) in enumerate(fixed[:CROSS], 1)
    ]
    rows = [
        {name: token_points(order, grid, frame.shape) for name, order in row}
        for row in (cross, fixed[CROSS:], sequences.items())
    ]
    return ScanFigure(
        cv2.cvtColor(frame.place(image), cv2.COLOR_BGR2RGB),
        rows,
        {f'F_dir {name}': x for name, x in scans.directions.items()},
        reach=neighbour_reach(grid, frame.shape),
        title=f'{title}level {level}: {grid[0]} x {grid[1]} tokens',
    )


def measure(
    model: BaseSegmentor,
    pairs: Sequence[tuple[Path, Path]],
    level: int | None = None,
) -> dict[int, LevelDistances]:
    """Mean distances of neighbouring crack tokens over labelled images.

    Args:
        model: From :func:`~mmseg_crackssm.apis.inference.init_model`.
        pairs: Images and masks.
        level: Number of the level, from 1; by default all.

    Returns:
        Distances by level.

    Raises:
        UsageError: If files cannot be read or do not fit, or there is no
            such level.
    """
    sums: dict[int, DistanceSum] = {}
    for path, label_path in track(pairs):
        image, label = read_pair(path, label_path)
        inputs, frame = load_input(model, image)
        scans = capture_scans(model, inputs)
        numbers = range(1, len(scans.levels) + 1)
        for number in numbers if level is None else [pick_level(scans, level)]:
            scan = scans.levels[number - 1]
            crack = crack_tokens(label, scan.grid, frame)
            sums.setdefault(number, DistanceSum()).add(scan, crack)
    return {number: found.result() for number, found in sums.items()}


def distances_table(levels: dict[int, LevelDistances]) -> PrettyTable:
    """The distances of :func:`measure`, an order a row."""
    table = PrettyTable(['level', 'order', 'mean distance', '/ length'])
    table.align = 'r'
    table.align['order'] = 'l'
    for level, found in levels.items():
        for name, mean in found.means.items():
            shown = [f'{mean.steps:.2f}', f'{mean.share:.4f}']
            table.add_row([level, name, *shown])
    return table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Draw where scans go over an image: raster, cross and '
        'snake orders, and the tokens as DPSM reorders them; or, with '
        '--labels, measure how near they bring the tokens of a crack'
    )
    parser.add_argument('config', help='config, or name of a shipped one')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='trained weights (default: random ones of seed 0)',
    )
    parser.add_argument(
        'image', type=Path, help='an image; with --labels a folder of images'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/show_scan'),
        help='folder of the pictures (default: %(default)s)',
    )
    parser.add_argument(
        '--level',
        type=int,
        help='number of the feature map, counted from 1: of those that DPSM '
        'scans, else of the maps of the backbone (default: the one with the '
        'fewest tokens; all with --labels)',
    )
    parser.add_argument(
        '--animate',
        choices=('gif', 'mp4'),
        help='also write the growing paths as an animation',
    )
    parser.add_argument(
        '--frames',
        type=int,
        default=60,
        help='of the animation (default: %(default)s)',
    )
    parser.add_argument(
        '--labels',
        type=Path,
        help='folder of masks of the same stems as the images: print the '
        'mean distance in sequence position between neighbouring crack '
        'tokens, and draw nothing',
    )
    parser.add_argument(
        '--label-suffix',
        nargs='+',
        default=COMMON_SUFFIXES,
        metavar='S',
        help='what the names of masks end in, e.g. _mask.png',
    )
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the distances there'
    )
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load a checkpoint that holds more than weights',
    )
    # Options may stand between the optional checkpoint and the image.
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    if args.frames < 1:
        raise UsageError(f'--frames: expected at least 1, got {args.frames}')
    if not args.image.exists():
        raise FileNotFoundError(f'{printable(args.image)} does not exist')
    if args.image.is_dir() != (args.labels is not None):
        raise UsageError(
            f'{printable(args.image)}: expected an image to draw on, or a '
            'folder of images with --labels FOLDER to measure'
        )
    if args.json and not args.labels:
        raise UsageError('--json is for distances: give --labels')
    if args.animate and args.labels:
        raise UsageError('--animate is for one image: leave out --labels')
    (_measure if args.labels else _draw)(args)


def _load(args: argparse.Namespace) -> tuple[BaseSegmentor, str]:
    """The model, and what its weights are."""
    torch.manual_seed(0)
    model = init_model(
        args.config,
        args.checkpoint,
        args.device,
        unsafe_load=args.unsafe_load,
    )
    if args.checkpoint is None:
        return model, 'random weights (no checkpoint given)'
    return model, f'weights {printable(Path(args.checkpoint).name)}'


def _draw(args: argparse.Namespace) -> None:
    check_output_folder(args.out, '--out')
    try:
        image = read_image(args.image)
    except ValueError as error:
        raise UsageError(f'{error}: export it again, e.g. as PNG') from error
    model, weights = _load(args)
    title = f'{printable(args.image.name)}, {weights}, '
    figure = make_figure(model, image, args.level, title)
    args.out.mkdir(parents=True, exist_ok=True)
    written = []
    if args.animate:
        written.append(args.out / f'{args.image.stem}_scan.{args.animate}')
        numbers = track(list(range(1, args.frames + 1)))
        write_animation(written[0], figure.frames(args.frames, numbers))
    written.append(args.out / f'{args.image.stem}_scan.png')
    figure.save(written[-1])
    names = ' and '.join(printable(path) for path in written)
    sys.stdout.write(f'{weights}; {names}\n')


def _measure(args: argparse.Namespace) -> None:
    if args.json:
        check_output_file(args.json, '--json')
    pairs = pair_labels(args.image, args.labels, args.label_suffix)
    model, weights = _load(args)
    levels = measure(model, pairs, args.level)
    if not any(found.pairs for found in levels.values()):
        raise UsageError(
            f'{printable(args.labels)}: no two neighbouring tokens are crack '
            'at any level, so that there is no distance to measure: give '
            'masks that hold cracks'
        )
    counts = '; '.join(
        f'level {number}: {found.tokens} crack tokens, {found.pairs} pairs'
        for number, found in levels.items()
    )
    sys.stdout.write(
        f'{len(pairs)} images, {weights}\n{counts}\n'
        'Mean distance in sequence position between crack tokens that are '
        '8-neighbours;\na token is crack if its cell of the label holds any '
        'crack pixel.\n'
        f'{distances_table(levels)}\n'
    )
    if not args.json:
        return
    report = {
        'config': printable(args.config),
        'checkpoint': args.checkpoint and printable(args.checkpoint),
        'images': len(pairs),
        'levels': {
            number: {
                'tokens': found.tokens,
                'pairs': found.pairs,
                'orders': {k: x._asdict() for k, x in found.means.items()},
            }
            for number, found in levels.items()
        },
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1) + '\n'
    args.json.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
