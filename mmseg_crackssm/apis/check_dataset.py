"""A data set's files, before training:
``python -m mmseg_crackssm.apis.check_dataset CONFIG|FOLDER``."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from prettytable import PrettyTable

from ..datasets.checking import (
    Checked,
    Finding,
    Sample,
    check_samples,
)
from ..datasets.crack_dataset import printable
from ..datasets.folder_dataset import CrackFolderDataset
from ..datasets.transforms import LoadCrackAnnotations
from ..utils.progress import track
from ..visualization import draw_overlay
from .config import load_config
from .errors import UsageError, check_output_folder, run_cli
from .inference import read_image

SPLITS = ('train', 'val', 'test')
#: Panels of the contact sheet, and their height in pixels.
MAX_PANELS = 24
PANEL_HEIGHT = 160
#: Lines of findings that are printed; the JSON has all.
MAX_LINES = 30


def samples_of_config(
    config: str | Path, cfg_options: dict | None = None
) -> tuple[list[Sample], list[Finding]]:
    """The pairs of a config's data sets, read as its pipelines read them.

    Args:
        config: Path, or name of a shipped config.
        cfg_options: Settings to override.

    Returns:
        The pairs of each split, val and test once if they are the same, and
        what is not paired.

    Raises:
        FileNotFoundError: If a folder is missing.
        UsageError: If the config has no data sets of files.
    """
    cfg = load_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    datasets = {}
    for split in SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        if loader and loader['dataset'] not in datasets.values():
            datasets[split] = loader['dataset']
    samples, findings = [], []
    for split, dataset in datasets.items():
        for part in dataset.get('datasets', [dataset]):
            loader = _loader_of(part.get('pipeline') or [])
            more, unpaired = _build(split, part, loader)
            samples += more
            findings += unpaired
    if not samples:
        raise UsageError(f'{config} has no data set of files to check')
    return samples, findings


def samples_of_folder(folder: Path) -> tuple[list[Sample], list[Finding]]:
    """The pairs of a folder, as :class:`CrackFolderDataset` finds them.

    Args:
        folder: The folder.

    Returns:
        As :func:`samples_of_config`.

    Raises:
        FileNotFoundError: If it holds no images and masks.
        UsageError: If none of them pair.
    """
    samples: list[Sample] = []
    findings: list[Finding] = []
    for split in SPLITS:
        dataset = ConfigDict(
            type=CrackFolderDataset.__name__,
            data_root=str(folder),
            split=split,
        )
        try:
            more, unpaired = _build(split, dataset, LoadCrackAnnotations())
        except UsageError as error:
            message = str(error).removeprefix(f'{split}: ')
            more, unpaired = [], [Finding('empty', split, '', message)]
        known = {sample.image for sample in samples}
        samples += [sample for sample in more if sample.image not in known]
        told = {finding.message for finding in findings}
        findings += [x for x in unpaired if x.message not in told]
    if not samples:
        raise UsageError('; '.join(x.message for x in findings))
    return samples, findings


def _loader_of(pipeline: Iterable[dict]) -> LoadCrackAnnotations:
    """What reads the masks in a pipeline."""
    for step in pipeline:
        if step['type'] == LoadCrackAnnotations.__name__:
            settings = {k: v for k, v in step.items() if k != 'type'}
            return LoadCrackAnnotations(**settings)
    return LoadCrackAnnotations()


def _build(
    split: str, dataset: ConfigDict, loader: LoadCrackAnnotations
) -> tuple[list[Sample], list[Finding]]:
    dataset = ConfigDict(dataset, pipeline=[], test_mode=True)
    findings = []
    try:
        built = DATASETS.build(dataset)
    except ValueError as error:
        findings.append(Finding('unpaired', split, '', str(error)))
        try:
            built = DATASETS.build(ConfigDict(dataset, unpaired='skip'))
        except (ValueError, TypeError) as second:
            raise UsageError(f'{split}: {second}') from second
    infos = [built.get_data_info(index) for index in range(len(built))]
    return [
        Sample(
            split=split,
            image=info['img_path'],
            mask=info['seg_map_path'],
            loader=loader,
        )
        for info in infos
        if 'seg_map_path' in info
    ], findings


def contact_sheet(
    checked: Sequence[Checked], findings: Sequence[Finding]
) -> np.ndarray:
    """The worst cases: what was found wrong, then the extremes.

    Args:
        checked: All pairs.
        findings: What is wrong with them.

    Returns:
        BGR uint8; each image with its mask in red, and why it is shown.
    """
    reasons: dict[str, str] = {}
    for finding in findings:
        if finding.path:
            reasons.setdefault(finding.path, finding.kind)
    with_share = [x for x in checked if x.share is not None]
    extremes = sorted(with_share, key=lambda x: x.share)
    chosen = [
        (item, reasons.get(item.sample.image) or reasons[item.sample.mask])
        for item in checked
        if item.sample.image in reasons or item.sample.mask in reasons
    ][:MAX_PANELS]
    for item in (*extremes[:4], *extremes[:-9:-1]):
        if len(chosen) < MAX_PANELS and all(item is not x for x, _ in chosen):
            chosen.append((item, f'{item.share:.2%} crack'))
    panels = [_panel(item, reason) for item, reason in chosen]
    width = max(panel.shape[1] for panel in panels)
    panels = [
        cv2.copyMakeBorder(
            panel, 3, 3, 3, width - panel.shape[1] + 3, cv2.BORDER_CONSTANT,
            value=(255, 255, 255),
        )
        for panel in panels
    ]  # fmt: skip
    while len(panels) % 4:
        panels.append(np.full_like(panels[0], 255))
    rows = [np.hstack(panels[i : i + 4]) for i in range(0, len(panels), 4)]
    return np.vstack(rows)


def _panel(item: Checked, reason: str) -> np.ndarray:
    sample = item.sample
    try:
        image = read_image(sample.image)
    except ValueError:
        image = np.full((PANEL_HEIGHT, PANEL_HEIGHT, 3), 200, dtype=np.uint8)
    if item.share is not None:
        results = {'seg_map_path': sample.mask, 'img_path': sample.image}
        label = sample.loader.transform(results)['gt_seg_map']
        if label.shape == image.shape[:2]:
            image = draw_overlay(image, label == 1)
    scale = PANEL_HEIGHT / image.shape[0]
    width = min(max(round(image.shape[1] * scale), 60), 4 * PANEL_HEIGHT)
    image = cv2.resize(
        image, (width, PANEL_HEIGHT), interpolation=cv2.INTER_AREA
    )
    caption = np.full((34, width, 3), 255, dtype=np.uint8)
    name = Path(sample.image).name.encode('ascii', 'replace').decode()
    for line, text in enumerate((f'{sample.split} {name}', reason)):
        cv2.putText(
            caption, text, (2, 13 + 16 * line), cv2.FONT_HERSHEY_SIMPLEX,
            0.4, (0, 0, 0), lineType=cv2.LINE_AA,
        )  # fmt: skip
    return np.vstack([image, caption])


def summarise(checked: Sequence[Checked], findings: Sequence[Finding]) -> dict:
    """Counts per split, and all findings, as plain data."""
    splits = {}
    for split in dict.fromkeys(item.sample.split for item in checked):
        part = [item for item in checked if item.sample.split == split]
        shares = [item.share for item in part if item.share is not None]
        levels = Counter(_describe_levels(item) for item in part)
        sizes = Counter(
            f'{x.size[1]}x{x.size[0]}' for x in part if x.size is not None
        )
        splits[split] = {
            'images': len(part),
            'sizes': dict(sizes.most_common()),
            'mask_values': dict(levels.most_common()),
            'empty_masks': sum(share == 0 for share in shares),
            'crack_share': float(np.mean(shares)) if shares else None,
            'crack_share_min': min(shares, default=None),
            'crack_share_max': max(shares, default=None),
        }
    return {
        'sound': not any(finding.is_error for finding in findings),
        'splits': splits,
        'findings': [
            {
                'kind': x.kind,
                'error': x.is_error,
                'split': x.split,
                'path': printable(x.path),
                'message': printable(x.message),
            }
            for x in findings
        ],
    }


def _describe_levels(item: Checked) -> str:
    """Values of a mask, in few words."""
    if not item.levels:
        return item.mode or 'unreadable'
    if len(item.levels) > 4:
        return f'{len(item.levels)} grey levels'
    return '/'.join(map(str, item.levels))


def format_report(report: dict) -> str:
    """The result as text for people."""
    table = PrettyTable(
        ['split', 'images', 'sizes (w x h)', 'mask values', 'empty masks']
        + ['crack pixels', 'least', 'most']
    )
    table.align = 'l'
    for split, part in report['splits'].items():
        shares = (
            part[f'crack_share{suffix}'] for suffix in ('', '_min', '_max')
        )
        table.add_row(
            [
                split,
                part['images'],
                _few(part['sizes']),
                _few(part['mask_values']),
                part['empty_masks'],
                *('-' if x is None else f'{x:.2%}' for x in shares),
            ]
        )
    lines = [table.get_string()]
    findings = sorted(report['findings'], key=lambda x: not x['error'])
    for finding in findings[:MAX_LINES]:
        grade = 'ERROR' if finding['error'] else 'warning'
        place = f'{finding["split"]} {finding["path"]}'.strip()
        lines.append(
            f'{grade} ({finding["kind"]}) {place}: {finding["message"]}'
        )
    if len(findings) > MAX_LINES:
        lines.append(f'... and {len(findings) - MAX_LINES} more (--json)')
    lines.append(
        'Nothing stands against training on it.'
        if report['sound']
        else 'Training on it, or its scores, would not be sound.'
    )
    return '\n'.join(lines)


def _few(counts: dict[str, int]) -> str:
    """The most frequent ones."""
    items = list(counts.items())
    words = [f'{name} ({count})' for name, count in items[:3]]
    return ', '.join(words) + (', ...' if len(items) > 3 else '')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Check the files of a data set before training on it. '
        'The exit status is 1 if training, or its scores, would not be sound.'
    )
    parser.add_argument(
        'source', help='config (file or shipped name), or folder'
    )
    parser.add_argument(
        '--data-root', help='folder of the data, if not that of the config'
    )
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the report there'
    )
    parser.add_argument(
        '--sheet',
        type=Path,
        metavar='PNG',
        help='draw the worst cases there',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        help='processes (default: one per core)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> int:
    if args.workers < 1:
        raise UsageError(f'--workers: expected at least 1, got {args.workers}')
    for path, option in ((args.json, '--json'), (args.sheet, '--sheet')):
        if path:
            check_output_folder(path.parent, option)
    if Path(args.source).is_dir():
        samples, unpaired = samples_of_folder(Path(args.source))
    else:
        options = {'data_root': args.data_root} if args.data_root else None
        samples, unpaired = samples_of_config(args.source, options)
    checked, findings = check_samples(
        samples, mapper=partial(_map_with_progress, workers=args.workers)
    )
    findings = [*unpaired, *findings]
    report = summarise(checked, findings)
    sys.stdout.write(format_report(report) + '\n')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + '\n')
    if args.sheet:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(args.sheet), contact_sheet(checked, findings)):
            raise UsageError(f'--sheet: cannot write {args.sheet}')
        sys.stdout.write(f'Worst cases: {args.sheet}\n')
    return 0 if report['sound'] else 1


def _map_with_progress(
    function: partial, samples: Sequence[Sample], workers: int
) -> Iterator[Checked]:
    with ProcessPoolExecutor(max_workers=workers) as pool:
        results = pool.map(function, samples, chunksize=4)
        yield from track((results, len(samples)))


if __name__ == '__main__':
    sys.exit(main())
