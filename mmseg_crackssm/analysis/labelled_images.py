"""Folders of images and their masks, for measurements."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..apis.errors import UsageError
from ..apis.inference import read_image
from ..datasets.crack_dataset import COMMON_SUFFIXES, list_names, printable
from ..datasets.file_names import files_by_name
from ..datasets.mask_reading import UnclearMaskError
from ..datasets.transforms import LoadCrackAnnotations


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
