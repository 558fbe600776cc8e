"""Bring a folder of images and one of masks into one form:
``python -m mmseg_crackssm.datasets.converters.pairs IMAGES MASKS OUT``.

For releases whose files do not pair by name, whose images are larger than
their masks, or whose cracks are black. This writes ``images/NAME.*``, byte
for byte unless resized, and ``masks/NAME.png``, 0 background, 255 crack.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmseg_crackssm.apis.errors import UsageError, check_output_folder, run_cli
from mmseg_crackssm.utils.progress import track

from ..crack_dataset import COMMON_SUFFIXES, list_names, printable
from ..file_names import files_by_name
from ..transforms import LoadCrackAnnotations


def find_pairs(
    images: Path,
    masks: Path,
    img_suffix: Sequence[str] = COMMON_SUFFIXES,
    mask_suffix: Sequence[str] = COMMON_SUFFIXES,
    img_prefix: str = '',
    mask_prefix: str = '',
) -> tuple[dict[str, tuple[Path, Path]], list[str], list[str]]:
    """Pair files by what is left of their names.

    Args:
        images: Folder, searched with its sub-folders.
        masks: The same.
        img_suffix: Endings to take off the names of images; other files, and
            those without ``img_prefix``, are no images of this set.
        mask_suffix: The same of masks.
        img_prefix: Beginning to take off the names of images.
        mask_prefix: The same of masks.

    Returns:
        Image and mask by name, in order; names of images without mask; names
        of masks without image.

    Raises:
        FileNotFoundError: If a folder is missing.
        UsageError: If two files have one name, or no two pair.
    """
    found = [
        files_by_name(
            folder,
            suffix,
            clash='have one name: convert sub-folders one by one',
            prefix=prefix,
            with_folders=False,
        )
        for folder, suffix, prefix in (
            (images, img_suffix, img_prefix),
            (masks, mask_suffix, mask_prefix),
        )
    ]
    common = sorted(found[0].keys() & found[1].keys())
    if not common:
        raise UsageError(
            'no image and mask of one name: images are called '
            f'{list_names(sorted(found[0])) or "(none)"}, masks '
            f'{list_names(sorted(found[1])) or "(none)"}. Say what else their '
            'names hold by --img-prefix, --img-suffix, --mask-prefix and '
            '--mask-suffix'
        )
    return (
        {name: (found[0][name], found[1][name]) for name in common},
        sorted(found[0].keys() - found[1].keys()),
        sorted(found[1].keys() - found[0].keys()),
    )


def convert_pair(
    image: Path,
    mask: Path,
    out: Path,
    name: str,
    loader: LoadCrackAnnotations,
    resize_images: bool = False,
) -> None:
    """Write one pair.

    Args:
        image: Image file.
        mask: Mask file.
        out: Folder that holds ``images`` and ``masks``.
        name: Name of the pair.
        loader: Reads the mask.
        resize_images: Bring an image of another size to its mask's.

    Raises:
        ValueError: If a file cannot be read, or the sizes differ.
    """
    label = loader.transform({'seg_map_path': str(mask), 'seg_fields': []})
    label = label['gt_seg_map']
    size = label.shape[::-1]
    try:
        with Image.open(image) as opened:
            upright = ImageOps.exif_transpose(opened)
            upright.load()
    except Exception as error:  # Pillow raises a dozen types here
        raise ValueError(
            f'{printable(image)} cannot be decoded '
            f'({type(error).__name__}: {error})'
        ) from error
    if upright.size == size:
        shutil.copyfile(image, out / 'images' / f'{name}{image.suffix}')
    elif not resize_images:
        raise ValueError(
            f'{printable(image)} is {upright.width} x {upright.height} '
            f'(width x height), its mask {size[0]} x {size[1]}: '
            '--resize-images brings images to the size of their masks'
        )
    else:
        resized = upright.convert('RGB').resize(size, Image.Resampling.LANCZOS)
        resized.save(out / 'images' / f'{name}.png')
    Image.fromarray(_to_levels(label)).save(out / 'masks' / f'{name}.png')


def _to_levels(label: np.ndarray) -> np.ndarray:
    """0 background, 255 crack, 128 ignored."""
    return np.choose(np.minimum(label, 2), [0, 255, 128]).astype(np.uint8)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of the conversion."""
    parser = argparse.ArgumentParser(
        description='Pair images and masks by name and write images/ and '
        'masks/ (0 and 255).'
    )
    parser.add_argument('images', type=Path, help='folder of images')
    parser.add_argument('masks', type=Path, help='folder of masks')
    parser.add_argument('out', type=Path, help='folder to write')
    for kind in ('img', 'mask'):
        parser.add_argument(
            f'--{kind}-prefix',
            default='',
            metavar='P',
            help='what names begin with and do not share',
        )
        parser.add_argument(
            f'--{kind}-suffix',
            nargs='+',
            default=COMMON_SUFFIXES,
            metavar='S',
            help='what names end in (default: the common image suffixes)',
        )
    meaning = parser.add_mutually_exclusive_group()
    meaning.add_argument(
        '--invert', action='store_true', help='cracks are black in the masks'
    )
    meaning.add_argument(
        '--threshold',
        type=int,
        metavar='LEVEL',
        help='grey levels above it are white; needed for masks with many',
    )
    parser.add_argument(
        '--resize-images',
        action='store_true',
        help='bring images to the size of their masks',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 1 if a file is broken or nothing can be done.
    """
    return run_cli(partial(_convert, parse_args(argv)))


def _convert(args: argparse.Namespace) -> int:
    for folder in ('images', 'masks'):
        check_output_folder(args.out / folder, 'out')
        if (args.out / folder).resolve() in (
            args.images.resolve(),
            args.masks.resolve(),
        ):
            raise UsageError(
                f'{printable(args.out)} holds what is to be converted; name '
                'another folder'
            )
    pairs, lone_images, lone_masks = find_pairs(
        args.images,
        args.masks,
        img_suffix=args.img_suffix,
        mask_suffix=args.mask_suffix,
        img_prefix=args.img_prefix,
        mask_prefix=args.mask_prefix,
    )
    try:
        loader = LoadCrackAnnotations(
            threshold=args.threshold, crack_values=[0] if args.invert else None
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    for folder in ('images', 'masks'):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    broken = []
    for name, (image, mask) in track(list(pairs.items())):
        try:
            convert_pair(
                image,
                mask,
                out=args.out,
                name=name,
                loader=loader,
                resize_images=args.resize_images,
            )
        except ValueError as error:
            broken.append(str(error))
    lines = [f'wrote {len(pairs) - len(broken)} pairs to {args.out}']
    for what, names in (
        ('images without mask', lone_images),
        ('masks without image', lone_masks),
    ):
        if names:
            lines.append(f'skipped {len(names)} {what}: {list_names(names)}')
    lines += [f'broken: {reason}' for reason in broken]
    sys.stdout.write('\n'.join(lines) + '\n')
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
