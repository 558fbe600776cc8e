"""Convert the release of the CrackForest Dataset (CFD):
``python -m mmseg_crackssm.datasets.converters.cfd RELEASE data/CFD``.

The release holds ``image/NNN.jpg`` and ``groundTruth/NNN.mat``. This writes

    images/NNN.jpg               the images, byte for byte
    masks/NNN.png                0 background, 255 crack
    splits/{train,val,test}.txt  NNN % 3 == 1, 2 and 0

The labels in the .mat files are 1 background, 2 crack, 3 area enclosed by
cracks (which is no crack and fills a third of some images), 4 further faint
cracks.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.io import loadmat

from mmseg_crackssm.apis.errors import (
    UsageError,
    check_output_folder,
    run_cli,
)
from mmseg_crackssm.utils.progress import track

BACKGROUND, CRACK, ENCLOSED, FAINT = 1, 2, 3, 4
#: What is written for each choice of ``faint``.
FAINT_VALUES = {'crack': 255, 'background': 0, 'ignore': 128}
FOLDERS = ('images', 'masks', 'splits')
SPLITS = {'train': 1, 'val': 2, 'test': 0}


class Report(NamedTuple):
    """What :func:`convert` did.

    Attributes:
        splits: Names written, per split.
        skipped: Reason per name that lacks its image or its labels.
        broken: Reason per name whose files cannot be read or do not fit.
    """

    splits: dict[str, list[str]]
    skipped: dict[str, str]
    broken: dict[str, str]


def labels_to_mask(labels: np.ndarray, faint: str = 'crack') -> np.ndarray:
    """Turn CFD's labels into a mask.

    Args:
        labels: Label map (H, W) with the values 1..4.
        faint: What label 4 becomes: 'crack' (255), 'background' (0) or
            'ignore' (128; load it with ``ignore_values=[128]``).

    Returns:
        Mask (H, W), uint8.

    Raises:
        ValueError: If there are other values than 1..4.
    """
    if faint not in FAINT_VALUES:
        raise ValueError(
            f'faint must be one of {tuple(FAINT_VALUES)}, got {faint!r}'
        )
    unknown = sorted(set(np.unique(labels).tolist()) - {1, 2, 3, 4})
    if unknown or labels.ndim != 2:
        raise ValueError(
            'expected a two-dimensional label map of 1..4, got shape '
            f'{labels.shape} with the values {unknown}'
        )
    mask = np.zeros(labels.shape, dtype=np.uint8)
    mask[labels == CRACK] = 255
    mask[labels == FAINT] = FAINT_VALUES[faint]
    return mask


def read_labels(path: Path) -> np.ndarray:
    """Read ``groundTruth[0, 0]['Segmentation']`` of one .mat file.

    Raises:
        ValueError: If the file is no such file.
    """
    try:
        content = loadmat(str(path))
        return np.asarray(content['groundTruth'][0, 0]['Segmentation'])
    except Exception as error:  # SciPy raises a dozen types here
        raise ValueError(
            f'{path.name} is not readable as a CFD label file '
            f'({type(error).__name__}: {error})'
        ) from error


def _convert_one(image: Path, labels: Path, dst: Path, faint: str) -> None:
    """Convert one pair; ValueError if it is broken."""
    mask = labels_to_mask(read_labels(labels), faint=faint)
    try:
        with Image.open(image) as opened:
            opened.load()
            size = opened.size
    except Exception as error:
        raise ValueError(
            f'{image.name} cannot be decoded ({type(error).__name__}: {error})'
        ) from error
    if size != mask.shape[::-1]:
        raise ValueError(
            f'{image.name} is {size[0]} x {size[1]} (width x height), its '
            f'labels are {mask.shape[1]} x {mask.shape[0]}'
        )
    shutil.copyfile(image, dst / 'images' / f'{image.stem}.jpg')
    Image.fromarray(mask).save(dst / 'masks' / f'{image.stem}.png')


def _split_of(name: str) -> str:
    rest = int(name) % 3
    return next(split for split, value in SPLITS.items() if value == rest)


def _find_pairs(
    src: Path,
) -> tuple[dict[str, tuple[Path, Path]], dict[str, str]]:
    """Image and labels by name, in order; the other names and why."""
    absent = [
        name for name in ('image', 'groundTruth') if not (src / name).is_dir()
    ]
    if absent:
        raise FileNotFoundError(
            f'{src} does not hold {" and ".join(absent)}. Expected the '
            'release of the CrackForest Dataset (GitHub repository '
            'cuilimeng/CrackForest-dataset) with image/*.jpg and '
            'groundTruth/*.mat'
        )
    images = {p.stem: p for p in (src / 'image').glob('*.jpg')}
    labels = {p.stem: p for p in (src / 'groundTruth').glob('*.mat')}
    skipped = {name: 'no label file' for name in images.keys() - labels.keys()}
    skipped.update(
        (name, 'no image') for name in labels.keys() - images.keys()
    )
    names = sorted(images.keys() & labels.keys())
    for name in [name for name in names if not name.isdecimal()]:
        skipped[name] = 'its name is no number, so it has no split'
        names.remove(name)
    if not names:
        raise FileNotFoundError(
            f'{src} holds {len(images)} images and {len(labels)} label files '
            'but no pair of the same number, such as image/001.jpg and '
            'groundTruth/001.mat'
        )
    pairs = {name: (images[name], labels[name]) for name in names}
    return pairs, dict(sorted(skipped.items()))


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    faint: str = 'crack',
    progress: bool = False,
) -> Report:
    """Convert the release in ``src``; write to ``dst``.

    Files that cannot be converted are left out and reported. Running it
    again overwrites its own files.

    Args:
        src: Folder that holds ``image`` and ``groundTruth``.
        dst: Folder to write, created if absent.
        faint: See :func:`labels_to_mask`.
        progress: Show a progress bar on the standard error stream.

    Raises:
        FileNotFoundError: If ``src`` is not the release.
        UsageError: If ``dst`` is ``src`` or cannot be written.
        ValueError: If ``faint`` is unknown.
    """
    src, dst = Path(src), Path(dst)
    if faint not in FAINT_VALUES:
        raise ValueError(
            f'faint must be one of {tuple(FAINT_VALUES)}, got {faint!r}'
        )
    if src.resolve() == dst.resolve():
        raise UsageError(f'{dst} is the release itself; name another folder')
    for folder in FOLDERS:
        check_output_folder(dst / folder, 'dst')

    pairs, skipped = _find_pairs(src)
    for folder in FOLDERS:
        (dst / folder).mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    broken: dict[str, str] = {}
    for name, (image, labels) in track(list(pairs.items()), progress):
        try:
            _convert_one(image, labels, dst=dst, faint=faint)
        except ValueError as error:
            broken[name] = str(error)
        else:
            splits[_split_of(name)].append(name)
    for split, members in splits.items():
        text = ''.join(f'{name}\n' for name in members)
        (dst / 'splits' / f'{split}.txt').write_text(text, encoding='utf-8')
    return Report(splits=splits, skipped=skipped, broken=broken)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of the conversion."""
    parser = argparse.ArgumentParser(
        description='Convert the release of the CrackForest Dataset (CFD): '
        'images/, masks/ (0 and 255) and splits/{train,val,test}.txt.'
    )
    parser.add_argument('src', help='folder with image/ and groundTruth/')
    parser.add_argument('dst', help='folder to write, usually data/CFD')
    parser.add_argument(
        '--faint',
        choices=FAINT_VALUES,
        default='crack',
        help='what the faint cracks (label 4, in five images) become; '
        '"ignore" writes 128, to be loaded with ignore_values=[128] '
        '(default: %(default)s)',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 1 if a file is broken or nothing can be done.
    """
    return run_cli(partial(_convert, parse_args(argv)))


def _convert(args: argparse.Namespace) -> int:
    report = convert(args.src, args.dst, faint=args.faint, progress=True)
    counts = ', '.join(
        f'{len(names)} {split}' for split, names in report.splits.items()
    )
    lines = [f'wrote {counts} to {args.dst}']
    for title, reasons in (
        ('skipped', report.skipped),
        ('broken', report.broken),
    ):
        for name, reason in reasons.items():
            lines.append(f'{title} {name}: {reason}')
    sys.stdout.write('\n'.join(lines) + '\n')
    return 1 if report.broken else 0


if __name__ == '__main__':
    sys.exit(main())
