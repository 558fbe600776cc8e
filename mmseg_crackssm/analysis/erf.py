"""Effective receptive fields: ``python -m mmseg_crackssm.analysis.erf``."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from numpy.typing import NDArray
from torch import Tensor

from ..apis.errors import UsageError, check_output_folder, run_cli
from ..apis.inference import init_model, read_image
from ..apis.predict import find_images
from ..utils.progress import track

THRESHOLDS = (0.2, 0.5, 0.99)
"""Parts of the energy whose area is told."""


def accumulate_contributions(
    feature: Callable[[Tensor], Tensor], images: Iterable[Tensor]
) -> NDArray[np.float64]:
    """What each pixel contributes to the centre of a feature map.

    The derivatives of the central point's sum over the channels by the
    pixels, negative ones dropped, added up over images and their channels
    (He and Wang, CrackMamba, eq. E1 to E3; Ding et al., RepLKNet).

    Args:
        feature: Maps images (B, 3, H, W) to a feature (B, C, h, w).
        images: Batches (B, 3, H, W), all of one H and W.

    Returns:
        (H, W), at least 0.

    Raises:
        ValueError: If there are no images.
    """
    total: Tensor | None = None
    for batch in images:
        batch = batch.detach().requires_grad_()
        out = feature(batch)
        centre = out[..., out.shape[-2] // 2, out.shape[-1] // 2]
        (gradient,) = torch.autograd.grad(centre.sum(), batch)
        found = gradient.clamp(min=0).sum(dim=(0, 1), dtype=torch.float64)
        total = found if total is None else total + found
    if total is None:
        raise ValueError('expected at least one batch of images, got none')
    return total.cpu().numpy()


def contribution_map(contributions: NDArray) -> NDArray[np.float64]:
    """The visualised map: log10(1 + x), over its largest value (eq. E3).

    Args:
        contributions: (H, W), at least 0.

    Returns:
        (H, W) in [0, 1].
    """
    scaled = np.log10(1 + contributions)
    return scaled / max(scaled.max(), np.finfo(np.float64).tiny)


def area_shares(
    energy: NDArray, thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, float]:
    """How much of the image holds how much of the energy.

    The image is cropped to its centre, keeping its proportions, as far as
    the crop still holds the wanted part of the sum (RepLKNet's
    high-contribution area ratio, for images that need not be square).

    Args:
        energy: (H, W), at least 0.
        thresholds: Parts of the sum, in (0, 1).

    Returns:
        Area of the smallest such crop over H * W, by threshold; all 1 for a
        map without any energy.
    """
    height, width = energy.shape
    row, column = height // 2, width // 2
    # Half sides, from the central pixel alone to what covers everything.
    steps = max(height, width) // 2 + 1
    sums = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    shares = dict.fromkeys(thresholds, 1.0)
    if sums[-1, -1] <= 0:
        return shares
    pending = sorted(thresholds)
    for step in range(steps):
        up = round(step * height / max(height, width))
        left = round(step * width / max(height, width))
        top, bottom = max(row - up, 0), min(row + up + 1, height)
        first, last = max(column - left, 0), min(column + left + 1, width)
        held = (
            sums[bottom, last]
            - sums[top, last]
            - sums[bottom, first]
            + sums[top, first]
        )
        while pending and held >= pending[0] * sums[-1, -1]:
            area = (bottom - top) * (last - first)
            shares[pending.pop(0)] = area / (height * width)
    return shares


def select_feature(
    model: BaseSegmentor, stage: str
) -> Callable[[Tensor], Tensor]:
    """A function from preprocessed images to one feature map.

    Args:
        model: A segmentor.
        stage: Number of an output of the backbone, from 1, or the dotted
            name of a module that returns one map.

    Raises:
        UsageError: If there is no such stage.
    """
    if stage.isdigit():
        return partial(_backbone_output, model, int(stage))
    modules = dict(model.named_modules())
    if stage not in modules:
        near = [x for x in modules if x.startswith(stage.split('.')[0])]
        raise UsageError(
            f'--stage {stage!r}: expected the number of an output of the '
            f'backbone, from 1, or the name of a module, such as '
            f'{", ".join((near or list(modules)[1:])[:8])}'
        )
    return partial(_module_output, model, modules[stage], stage)


def _backbone_output(
    model: BaseSegmentor, number: int, images: Tensor
) -> Tensor:
    outs = model.backbone(images)
    outs = (outs,) if isinstance(outs, Tensor) else outs
    if not 1 <= number <= len(outs):
        raise UsageError(
            f'--stage {number}: the backbone has outputs 1 to {len(outs)}'
        )
    return outs[number - 1]


def _module_output(
    model: BaseSegmentor, module: torch.nn.Module, name: str, images: Tensor
) -> Tensor:
    found: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda module, args, output: found.append(output)
    )
    try:
        model(images, mode='tensor')
    finally:
        handle.remove()
    if not found or not isinstance(found[0], Tensor) or found[0].ndim != 4:
        what = type(found[0]).__name__ if found else 'nothing'
        raise UsageError(
            f'--stage {name!r}: expected a module that inference calls and '
            f'that returns one map (B, C, H, W), got {what}'
        )
    return found[0]


def load_batch(
    model: BaseSegmentor, path: Path, shape: tuple[int, int]
) -> Tensor:
    """One image, scaled to a size and normalised as the model wants it.

    Args:
        model: The segmentor.
        path: The file.
        shape: Height and width.

    Returns:
        (1, 3, H, W) on the model's device; H and W may be rounded up to
        what the model's preprocessor pads to.
    """
    image = cv2.resize(
        read_image(path), shape[::-1], interpolation=cv2.INTER_AREA
    )
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    sample = SegDataSample(metainfo={'img_shape': shape, 'ori_shape': shape})
    data = model.data_preprocessor(
        {'inputs': [tensor], 'data_samples': [sample]}, training=False
    )
    inputs = data['inputs']
    if isinstance(inputs, list):
        inputs = torch.stack(inputs)
    return inputs.float()


def measure(
    model: BaseSegmentor,
    stages: Sequence[str],
    files: Sequence[Path],
    shape: tuple[int, int],
) -> dict[str, NDArray[np.float64]]:
    """Contributions to the centre of each stage, over all images.

    Args:
        model: From :func:`~mmseg_crackssm.apis.inference.init_model`.
        stages: As for :func:`select_feature`.
        files: Image files.
        shape: Height and width that they are scaled to.

    Returns:
        (H, W) by stage.
    """
    return {
        stage: accumulate_contributions(
            select_feature(model, stage),
            (load_batch(model, path, shape) for path in track(files)),
        )
        for stage in stages
    }


def draw(
    maps: dict[str, dict[str, NDArray]],
    shares: dict[str, dict[str, dict[float, float]]],
    path: Path,
) -> None:
    """Draw the maps, stages in rows, before and after side by side.

    Args:
        maps: Contribution maps by weights ('before', 'after') and stage.
        shares: As of :func:`area_shares`, likewise.
        path: The figure; its suffix decides the format.
    """
    # Slow to import, and only needed here.
    from matplotlib.figure import Figure

    columns = list(maps)
    rows = list(maps[columns[0]])
    height, width = maps[columns[0]][rows[0]].shape
    figure = Figure(
        figsize=(
            3.2 * len(columns) + 1,
            (3.2 * height / width + 0.5) * len(rows),
        ),
        layout='constrained',
    )
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, stage in zip(axes, rows, strict=True):
        for cell, column in zip(line, columns, strict=True):
            shown = cell.imshow(
                maps[column][stage], cmap='viridis', vmin=0, vmax=1
            )
            areas = ', '.join(
                f'{part:.0%} in {share:.1%}'
                for part, share in shares[column][stage].items()
            )
            cell.set_title(f'stage {stage}, {column}\n{areas}', fontsize=8)
            cell.set_axis_off()
    figure.colorbar(shown, ax=axes, shrink=0.6, label='contribution')
    figure.savefig(path, dpi=150)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Map what each pixel of the image contributes to the '
        'centre of a feature map: before training (random weights of seed 0) '
        'and, with a checkpoint, after'
    )
    parser.add_argument('config', help='config, or name of a shipped one')
    parser.add_argument('checkpoint', nargs='?', help='trained weights')
    parser.add_argument(
        '--stage',
        nargs='+',
        required=True,
        help='outputs of the backbone, counted from 1, or names of modules',
    )
    parser.add_argument(
        '--images', type=Path, required=True, help='folder of images'
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=[512, 512],
        metavar=('H', 'W'),
        help='size the images are scaled to (default: 512 512)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/erf'),
        help='folder of the results (default: %(default)s)',
    )
    parser.add_argument(
        '--max-images', type=int, help='take the first of them alone'
    )
    parser.add_argument('--device', help='default: the GPU if there is one')
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load a checkpoint that holds more than weights',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    if min(args.shape) < 1 or (args.max_images or 1) < 1:
        raise UsageError('--shape and --max-images: expected at least 1')
    check_output_folder(args.out, '--out')
    files = list(find_images(args.images, args.out))[: args.max_images]
    checkpoints = {'before': None}
    if args.checkpoint is not None:
        checkpoints['after'] = args.checkpoint
    args.out.mkdir(parents=True, exist_ok=True)
    maps, shares = {}, {}
    for name, checkpoint in checkpoints.items():
        torch.manual_seed(0)
        model = init_model(
            args.config, checkpoint, args.device, unsafe_load=args.unsafe_load
        )
        found = measure(model, args.stage, files, tuple(args.shape))
        maps[name] = {k: contribution_map(v) for k, v in found.items()}
        shares[name] = {k: area_shares(v) for k, v in maps[name].items()}
        for stage, drawn in maps[name].items():
            np.save(args.out / f'stage-{stage}_{name}.npy', drawn)
    draw(maps, shares, args.out / 'erf.png')
    report = {
        name: {
            stage: {f'{part:.0%}': share for part, share in areas.items()}
            for stage, areas in by_stage.items()
        }
        for name, by_stage in shares.items()
    }
    (args.out / 'erf.json').write_text(json.dumps(report, indent=1))
    for name, by_stage in report.items():
        for stage, areas in by_stage.items():
            text = ', '.join(f'{k} in {v:.1%}' for k, v in areas.items())
            sys.stdout.write(f'stage {stage}, {name}: {text} of the area\n')
    sys.stdout.write(
        f'{len(files)} images; maps, erf.png and erf.json are in {args.out}\n'
    )


if __name__ == '__main__':
    sys.exit(main())
