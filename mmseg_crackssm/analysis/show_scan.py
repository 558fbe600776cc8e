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

from ..apis.errors import (
    UsageError,
    check_output_file,
    check_output_folder,
    run_cli,
)
from ..apis.inference import init_model, read_image
from ..datasets.crack_dataset import COMMON_SUFFIXES, printable
from ..utils.progress import track
from .labelled_images import pair_labels, read_pair
from .scan_capture import (
    ModelScans,
    capture_scans,
    fixed_orders,
    load_input,
)
from .scan_distance import (
    DistanceSum,
    LevelDistances,
    crack_tokens,
    distances_table,
)
from .scan_drawing import (
    ScanFigure,
    ScanPath,
    neighbour_reach,
    token_points,
    write_animation,
)
from .scan_reads import CrackReads, Reads, ReadSum, pick_reads, reads_table

#: Number of sequences of 'cross', with which the fixed orders begin.
CROSS = 4
#: Panels in a row.
PANELS = 4
#: How much farther apart than neighbours what these read may be drawn.
LOOSENESS = 1.5


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
    layer: str | None = None,
    groups: Sequence[int] | None = None,
) -> ScanFigure:
    """Draw the scans of one image.

    Args:
        model: From :func:`~mmseg_crackssm.apis.inference.init_model`.
        image: BGR uint8 (H, W, 3).
        level: As of :func:`pick_level`.
        title: Above all panels, before the level and its size.
        layer: As of :func:`~.scan_reads.pick_reads`.
        groups: As of :meth:`~.scan_reads.Reads.pick_groups`.

    Returns:
        The figure, its paths not yet drawn.

    Raises:
        UsageError: As :func:`~.scan_capture.capture_scans`, or if there is
            no such level, layer or group.
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
    reach = neighbour_reach(grid, frame.shape)
    rows = [
        {
            name: ScanPath(token_points(order, grid, frame.shape), reach)
            for name, order in row
        }
        for row in (cross, fixed[CROSS:], sequences.items())
    ]
    title += f'level {level}: {grid[0]} x {grid[1]} tokens'
    reads = pick_reads(scans.reads, grid, layer)
    if reads is not None:
        orders = sequences if reads.in_dpsm else {'raster': fixed[0][1]}
        rows += _rows_of_reads(reads, orders, groups, frame.shape)
        title += f'\nDAS: {reads.layer}, {len(reads.offsets)} groups'
    elif groups is not None:
        raise UsageError(
            f'--groups: level {level} has no layer with dynamic adaptive scan'
        )
    return ScanFigure(
        cv2.cvtColor(frame.place(image), cv2.COLOR_BGR2RGB),
        rows,
        {f'F_dir {name}': x for name, x in scans.directions.items()},
        title=title,
    )


def _rows_of_reads(
    reads: Reads,
    orders: dict[str, NDArray[np.int64]],
    groups: Sequence[int] | None,
    shape: tuple[int, int],
) -> list[dict[str, ScanPath]]:
    """Panels of dynamic adaptive scan: by group and sequence.

    As many groups as one row holds, if none are wanted in particular.
    """
    picked = reads.pick_groups(groups, max(PANELS // len(orders), 1))
    lengths, outside = reads.lengths(), reads.outside()
    reach = LOOSENESS * neighbour_reach(reads.grid, shape)
    panels = {}
    for group in picked:
        far = f'{lengths[group - 1]:.2f} tokens away'
        if outside[group - 1] >= 0.005:
            far += f', {outside[group - 1]:.0%} outside'
        for name, order in orders.items():
            title = f'DAS group {group}, {name}\n{far}'
            points = reads.points(group, order, shape)
            panels[title] = ScanPath(points, reach)
    names = list(panels)
    return [
        {name: panels[name] for name in names[first : first + PANELS]}
        for first in range(0, len(names), PANELS)
    ]


def measure(
    model: BaseSegmentor,
    pairs: Sequence[tuple[Path, Path]],
    level: int | None = None,
) -> tuple[dict[int, LevelDistances], dict[str, CrackReads]]:
    """Mean distances of neighbouring crack tokens over labelled images.

    Args:
        model: From :func:`~mmseg_crackssm.apis.inference.init_model`.
        pairs: Images and masks.
        level: Number of the level, from 1; by default all.

    Returns:
        Distances by level; and by layer, of those with dynamic adaptive
        scan at these levels, how often they read in crack tokens.

    Raises:
        UsageError: If files cannot be read or do not fit, or there is no
            such level.
    """
    sums: dict[int, DistanceSum] = {}
    read_sums: dict[str, ReadSum] = {}
    for path, label_path in track(pairs):
        image, label = read_pair(path, label_path)
        inputs, frame = load_input(model, image)
        scans = capture_scans(model, inputs)
        numbers = range(1, len(scans.levels) + 1)
        for number in numbers if level is None else [pick_level(scans, level)]:
            scan = scans.levels[number - 1]
            crack = crack_tokens(label, scan.grid, frame)
            sums.setdefault(number, DistanceSum()).add(scan, crack)
            for reads in scans.reads:
                if reads.grid == scan.grid:
                    total = read_sums.setdefault(reads.layer, ReadSum())
                    total.add(reads, crack)
    return (
        {number: found.result() for number, found in sums.items()},
        {layer: found.result() for layer, found in read_sums.items()},
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Draw where scans go over an image: raster, cross and '
        'snake orders, the tokens as DPSM reorders them, and the points that '
        'dynamic adaptive scan reads; or, with --labels, measure how near '
        'they bring the tokens of a crack'
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
        '--layer',
        metavar='PATH',
        help='of dynamic adaptive scan, by the end of its path in the model '
        '(default: the last at the level)',
    )
    parser.add_argument(
        '--groups',
        type=int,
        nargs='+',
        metavar='N',
        help='of channels, counted from 1, that are read at the same points '
        '(default: those that are read farthest away)',
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
    for name in ('animate', 'layer', 'groups'):
        if getattr(args, name) and args.labels:
            raise UsageError(f'--{name} is for one image: leave out --labels')
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
    figure = make_figure(
        model, image, args.level, title, args.layer, args.groups
    )
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
    levels, layers = measure(model, pairs, args.level)
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
    if layers:
        sys.stdout.write(
            'Share of the points that dynamic adaptive scan reads that are '
            'in crack tokens,\nand of tokens that are:\n'
            f'{reads_table(layers)}\n'
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
        'reads': {name: x._asdict() for name, x in layers.items()},
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1) + '\n'
    args.json.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    sys.exit(main())
