"""Convert the release of CrackSeg9k:
``python -m mmseg_crackssm.datasets.converters.crackseg9k RELEASE OUT``.

The release comes in two volumes, ``Final-Dataset-Vol1`` with ``Images`` and
the masks of both, ``Final_Masks/Masks``, and ``Final-Dataset-Vol2`` with
``Images-2``; its lists ``Final_Masks/{train,test}.txt`` name one image per
line. This writes

    images/NAME            images of both volumes, byte for byte
    masks/NAME             their masks, byte for byte
    splits/{train,test}.txt  the lists, without names that have no pair
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from mmseg_crackssm.apis.errors import UsageError, check_output_folder, run_cli
from mmseg_crackssm.utils.progress import track

from ..crack_dataset import list_names

IMAGE_FOLDERS = ('Images', 'Images-2')
MASK_FOLDER = 'Masks'
LISTS = ('train', 'test')


def find_release(src: Path) -> tuple[list[Path], Path, dict[str, Path]]:
    """Find the release's parts, however deep they were unpacked.

    Args:
        src: Folder that holds both volumes.

    Returns:
        Image folders, the mask folder, and the lists by split.

    Raises:
        FileNotFoundError: If something is not there.
    """
    if not src.is_dir():
        raise FileNotFoundError(f'{src} is no folder')
    folders = [path for path in sorted(src.rglob('*')) if path.is_dir()]
    images = [path for path in folders if path.name in IMAGE_FOLDERS]
    masks = [path for path in folders if path.name == MASK_FOLDER]
    lists = {}
    for name in LISTS:
        for path in sorted(src.rglob(f'{name}.txt')):
            lists.setdefault(name, path)
    missing = [
        what
        for what, there in (
            ('Final-Dataset-Vol1/Images', images),
            ('Final-Dataset-Vol1/Final_Masks/Masks', masks),
            ('Final_Masks/train.txt and test.txt', len(lists) == len(LISTS)),
        )
        if not there
    ]
    if missing:
        raise FileNotFoundError(
            f'{src} does not hold {" and ".join(missing)}. Expected the '
            'release of CrackSeg9k, version 4 (Harvard Dataverse), unpacked'
        )
    return images, masks[0], lists


def convert(
    src: Path, dst: Path, progress: bool = False
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Convert the release in ``src``; write to ``dst``.

    Args:
        src: Folder that holds both volumes.
        dst: Folder to write, created if absent.
        progress: Show a progress bar on the standard error stream.

    Returns:
        Pairs per split; and per split the names without image or mask.

    Raises:
        FileNotFoundError: If ``src`` is not the release.
        UsageError: If ``dst`` cannot be written or is ``src``.
    """
    if src.resolve() == dst.resolve():
        raise UsageError(f'{dst} is the release itself; name another folder')
    check_output_folder(dst, 'dst')
    image_folders, mask_folder, lists = find_release(src)
    images = {
        path.stem: path
        for folder in image_folders
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    masks = {p.stem: p for p in sorted(mask_folder.iterdir()) if p.is_file()}
    for folder in ('images', 'masks', 'splits'):
        (dst / folder).mkdir(parents=True, exist_ok=True)
    named = {split: _read_list(path) for split, path in lists.items()}
    pairs = {
        split: [name for name in names if name in images and name in masks]
        for split, names in named.items()
    }
    for name in track(list(chain.from_iterable(pairs.values())), progress):
        for kind, path in (('images', images[name]), ('masks', masks[name])):
            shutil.copyfile(path, dst / kind / path.name)
    for split, names in pairs.items():
        text = ''.join(f'{name}\n' for name in names)
        (dst / 'splits' / f'{split}.txt').write_text(text, encoding='utf-8')
    counts = {split: len(names) for split, names in pairs.items()}
    left_out = {
        split: sorted(set(names) - set(pairs[split]))
        for split, names in named.items()
    }
    return counts, left_out


def _read_list(path: Path) -> list[str]:
    """Names without folder and suffix, each once, in the list's order."""
    lines = path.read_text(encoding='utf-8-sig').splitlines()
    names = [
        line.strip().replace('\\', '/').rpartition('/')[2] for line in lines
    ]
    return list(dict.fromkeys(Path(name).stem for name in names if name))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of the conversion."""
    parser = argparse.ArgumentParser(
        description='Convert the release of CrackSeg9k: images/, masks/ and '
        'splits/{train,test}.txt.'
    )
    parser.add_argument('src', type=Path, help='folder with both volumes')
    parser.add_argument(
        'dst', type=Path, help='folder to write, usually data/CrackSeg9k'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_convert, parse_args(argv)))


def _convert(args: argparse.Namespace) -> None:
    counts, left_out = convert(args.src, args.dst, progress=True)
    words = ', '.join(f'{count} {split}' for split, count in counts.items())
    lines = [f'wrote {words} to {args.dst}']
    for split, names in left_out.items():
        if names:
            lines.append(
                f'skipped {len(names)} of {split} without image or mask: '
                f'{list_names(names)}'
            )
    sys.stdout.write('\n'.join(lines) + '\n')


if __name__ == '__main__':
    sys.exit(main())
