"""A data set's files, before training:
``python -m mmseg_crackssm.apis.check_dataset CONFIG|FOLDER``."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from mmengine.config import ConfigDict, DictAction
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from ..datasets.checking import (
    Checked,
    Finding,
    Sample,
    check_samples,
)
from ..datasets.crack_dataset import COMMON_SUFFIXES, printable
from ..datasets.folder_dataset import CrackFolderDataset
from ..datasets.transforms import LoadCrackAnnotations
from ..utils.progress import track
from ..visualization import has_image_writer, write_image
from .check_report import contact_sheet, format_report, summarise
from .config import find_config, load_config
from .errors import UsageError, check_output_file, run_cli

SPLITS = ('train', 'val', 'test')


def samples_of_config(
    config: str | Path, cfg_options: dict | None = None
) -> tuple[list[Sample], list[Finding]]:
    """The pairs of a config's data sets, read as its pipelines read them.

    Args:
        config: Path, or name of a shipped config.
        cfg_options: Settings to override.

    Returns:
        The pairs of each split, those of test only where they are not those
        of val, and what is not paired.

    Raises:
        FileNotFoundError: If a folder is missing.
        UsageError: If the config has no data sets of files, or none that can
            be used.
    """
    cfg = load_config(config, cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    loaders = {split: cfg.get(f'{split}_dataloader') for split in SPLITS}
    return _samples_of(
        {split: x['dataset'] for split, x in loaders.items() if x},
        source=config,
    )


def samples_of_folder(
    folder: Path,
    img_suffix: Sequence[str] = COMMON_SUFFIXES,
    mask_suffix: Sequence[str] = COMMON_SUFFIXES,
    crack_values: Sequence[int] | None = None,
) -> tuple[list[Sample], list[Finding]]:
    """The pairs of a folder, as :class:`CrackFolderDataset` finds them.

    Args:
        folder: The folder.
        img_suffix: What the names of images end in.
        mask_suffix: What the names of masks end in.
        crack_values: Grey levels that mean crack, if the masks do not say
            that by themselves.

    Returns:
        As :func:`samples_of_config`.

    Raises:
        FileNotFoundError: If it holds no images and masks.
        UsageError: If none of them pair.
    """
    loader = dict(
        type=LoadCrackAnnotations.__name__, crack_values=crack_values
    )
    datasets = {
        split: ConfigDict(
            type=CrackFolderDataset.__name__,
            data_root=str(folder),
            split=split,
            img_suffix=tuple(img_suffix),
            seg_map_suffix=tuple(mask_suffix),
            pipeline=[loader],
        )
        for split in SPLITS
    }
    return _samples_of(datasets, source=folder)


def _samples_of(
    datasets: dict[str, ConfigDict], source: str | Path
) -> tuple[list[Sample], list[Finding]]:
    samples: list[Sample] = []
    findings: list[Finding] = []
    files: dict[str, set[tuple[str, str]]] = {}
    for split, dataset in datasets.items():
        own, problems = [], []
        for part in dataset.get('datasets', [dataset]):
            more, found = _build(split, part)
            own += more
            problems += found
        files[split] = {(x.image, x.mask) for x in own}
        # Not a second set: val serves as test.
        if not (split == 'test' and files[split] == files.get('val')):
            samples += own
        told = {finding.message for finding in findings}
        findings += [x for x in problems if x.message not in told]
    if not samples:
        raise UsageError(
            '; '.join(f'{x.split}: {x.message}' for x in findings)
            or f'{printable(source)} has no data set of files to check'
        )
    return samples, findings


def _loader_of(pipeline: Iterable[dict]) -> LoadCrackAnnotations:
    """What reads the masks in a pipeline."""
    for step in pipeline:
        if step['type'] == LoadCrackAnnotations.__name__:
            settings = {k: v for k, v in step.items() if k != 'type'}
            return LoadCrackAnnotations(**settings)
    return LoadCrackAnnotations()


def _build(
    split: str, dataset: ConfigDict
) -> tuple[list[Sample], list[Finding]]:
    """The pairs that can be found, and why a run would not start."""
    loader = _loader_of(dataset.get('pipeline') or [])
    dataset = ConfigDict(dataset, pipeline=[], test_mode=True)
    try:
        return _pairs(split, dataset, loader), []
    except ValueError as error:
        first = str(error)
    try:
        pairs = _pairs(split, ConfigDict(dataset, unpaired='skip'), loader)
        return pairs, [Finding('unpaired', split, '', first)]
    except (ValueError, TypeError):
        return [], [Finding('unusable', split, '', first)]


def _pairs(
    split: str, dataset: ConfigDict, loader: LoadCrackAnnotations
) -> list[Sample]:
    built = DATASETS.build(dataset)
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
    ]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Check the files of a data set before training on it. '
        'The exit status is 1 if training, or its scores, would not be sound.'
    )
    parser.add_argument(
        'source', help='config (file or shipped name), or folder'
    )
    config = parser.add_argument_group('of a config')
    config.add_argument(
        '--data-root',
        help='folder of the data, if not that of the config; where it tests '
        'on another set than it trains on, that of the latter (the other: '
        '--cfg-options test_data_root=FOLDER)',
    )
    config.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings to override, as key=value with dotted keys',
    )
    folder = parser.add_argument_group('of a folder')
    folder.add_argument(
        '--img-suffix',
        nargs='+',
        metavar='S',
        help='what the names of images end in',
    )
    folder.add_argument(
        '--mask-suffix',
        nargs='+',
        metavar='S',
        help='what the names of masks end in, e.g. _mask.png',
    )
    folder.add_argument(
        '--crack-values',
        nargs='+',
        type=int,
        metavar='LEVEL',
        help='grey levels of the masks that mean crack, e.g. 0 where cracks '
        'are dark',
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
            check_output_file(path, option)
    if args.sheet and not has_image_writer(args.sheet):
        raise UsageError(
            f'--sheet {str(args.sheet)!r}: expected the suffix of an image '
            'format, such as .png'
        )
    samples, unpaired = _find_samples(args)
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
        write_image(args.sheet, contact_sheet(checked, findings))
        sys.stdout.write(f'Worst cases: {printable(args.sheet)}\n')
    return 0 if report['sound'] else 1


def _find_samples(
    args: argparse.Namespace,
) -> tuple[list[Sample], list[Finding]]:
    of_config = {
        '--data-root': args.data_root,
        '--cfg-options': args.cfg_options,
    }
    of_folder = {
        'img_suffix': args.img_suffix,
        'mask_suffix': args.mask_suffix,
        'crack_values': args.crack_values,
    }
    given = {key: value for key, value in of_folder.items() if value}
    if Path(args.source).is_dir():
        wrong = [option for option, value in of_config.items() if value]
        if wrong:
            raise UsageError(
                f'{" and ".join(wrong)} is for configs, and '
                f'{printable(args.source)} is a folder'
            )
        return samples_of_folder(Path(args.source), **given)
    try:
        config = find_config(args.source)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'there is no folder {printable(args.source)}; and {error}'
        ) from error
    if given:
        options = ['--' + name.replace('_', '-') for name in given]
        raise UsageError(
            f'{" and ".join(options)} is for folders, and '
            f'{printable(args.source)} is a config: set that by --cfg-options'
        )
    options = dict(args.cfg_options or {})
    if args.data_root:
        options['data_root'] = args.data_root
    return samples_of_config(config, options)


def _map_with_progress(
    function: partial, samples: Sequence[Sample], workers: int
) -> Iterator[Checked]:
    with ProcessPoolExecutor(max_workers=workers) as pool:
        results = pool.map(function, samples, chunksize=4)
        yield from track((results, len(samples)))


if __name__ == '__main__':
    sys.exit(main())
