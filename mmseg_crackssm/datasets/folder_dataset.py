"""Any folder of crack images with masks."""

import os.path as osp
from collections.abc import Iterator

import mmengine.fileio as fileio
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from .crack_dataset import CrackDataset, printable, take_of_ten

IMAGE_NAMES = ('images', 'image', 'imgs', 'img', 'JPEGImages')
MASK_NAMES = (
    *('masks', 'mask', 'labels', 'label', 'lab', 'gt', 'groundtruth'),
    *('annotations', 'SegmentationClass'),
)
SPLITS = {
    'train': ('train', 'Train', 'training'),
    'val': ('val', 'Val', 'valid', 'validation', 'Validation', 'test', 'Test'),
    'test': ('test', 'Test', 'testing', 'val', 'Val', 'valid', 'validation'),
}
#: Of each ten images in order, those that a split takes where the folder has
#: none.
TENTHS = {'train': range(8), 'val': range(8, 9), 'test': range(9, 10)}


@DATASETS.register_module()
class CrackFolderDataset(CrackDataset):
    """A folder of images and masks, whatever it calls them.

    Looks below ``data_root``, in this order, for folders named like
    ``IMAGE_NAMES`` and ``MASK_NAMES``, in

    1. ``train/images`` and ``train/masks``,
    2. ``images/train`` and ``masks/train``,
    3. ``train_images`` and ``train_masks``,
    4. ``images`` and ``masks``, with ``train.txt`` or ``splits/train.txt``,
    5. ``images`` and ``masks`` without a split: of each ten images in the
       order of their names the ninth goes to val and the tenth to test.

    and so for ``val`` and ``test``; where a folder has only one of these two,
    it serves as both. In case 4 a split without a file has the images that no
    file names: with ``train.txt`` alone, all others are val and test. In the
    cases before, a split without folders is an error. What was found is
    logged.

    Args:
        data_root: The folder.
        split: 'train', 'val' or 'test'.
        data_prefix: The folders, if they are called otherwise.
        ann_file: The split file, if it is called otherwise.
        **kwargs: Passed to :class:`CrackDataset`.

    Raises:
        FileNotFoundError: If ``data_root`` holds no such folders, or none of
            this split.
        ValueError: If there is no such split, or no image is left for it.
    """

    def __init__(
        self,
        data_root: str,
        split: str = 'train',
        data_prefix: dict | None = None,
        ann_file: str = '',
        **kwargs,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(
                f'split must be one of {tuple(SPLITS)}, got {split!r}'
            )
        self.split = split
        self._takes = None
        self._other_lists: list[str] = []
        if data_prefix is None:
            images, masks, found = _find_folders(data_root, split)
            data_prefix = dict(img_path=images, seg_map_path=masks)
            ann_file = ann_file or (found or '')
            if found is None and not ann_file:
                self._other_lists = _find_lists(data_root)
                self._takes = None if self._other_lists else TENTHS[split]
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            **kwargs,
        )
        message = (
            f'{split}: {len(self)} images of '
            f'{self.data_prefix["img_path"]}, masks of '
            f'{self.data_prefix["seg_map_path"]}'
        )
        if self.ann_file:
            message += f', named by {self.ann_file}'
        elif self._other_lists:
            message += f', not named by {" or ".join(self._other_lists)}'
        elif self._takes:
            message += ', split by their order'
        print_log(printable(message), logger='current')

    def _pair_all(
        self, images: dict[str, str], masks: dict[str, str] | None
    ) -> list[tuple[str, str | None]]:
        if self._other_lists:
            images, masks = self._not_listed(images, masks)
        pairs = super()._pair_all(images, masks)
        if self._takes is None:
            return pairs
        taken = take_of_ten(pairs, self._takes)
        if not taken:
            raise ValueError(
                f'{len(pairs)} images are too few to split by their order: '
                f'none is left for {self.split!r}. Name the samples in '
                'train.txt, val.txt and test.txt'
            )
        return taken

    def _not_listed(
        self, images: dict[str, str], masks: dict[str, str] | None
    ) -> tuple[dict[str, str], dict[str, str] | None]:
        """Files of the samples that no split file names."""
        named = {
            name
            for file in self._other_lists
            for name in self._read_split(osp.join(self.data_root, file))
        }
        known = ({image for image, _ in named}, {mask for _, mask in named})
        images = {k: v for k, v in images.items() if k not in known[0]}
        if masks is not None:
            masks = {k: v for k, v in masks.items() if k not in known[1]}
        if not images:
            raise ValueError(
                f'no image is left for {self.split!r}: all are named by '
                f'{" or ".join(self._other_lists)} in '
                f'{printable(osp.abspath(self.data_root))}. Name those of '
                f'{self.split!r} in {self.split}.txt alone'
            )
        return images, masks


def _candidates(split: str) -> Iterator[tuple[str, str]]:
    """Image and mask folders that belong to a split alone."""
    for name in SPLITS[split]:
        for image in IMAGE_NAMES:
            for mask in MASK_NAMES:
                yield f'{name}/{image}', f'{name}/{mask}'
                yield f'{image}/{name}', f'{mask}/{name}'
                yield f'{name}_{image}', f'{name}_{mask}'


def _find_folders(root: str, split: str) -> tuple[str, str, str | None]:
    """Image folder, mask folder, and split file.

    The file is '' where the folders themselves are the split's, and None
    where nothing splits them.
    """
    for images, masks in _candidates(split):
        if _are_folders(root, images, masks):
            return images, masks, ''
    for other in SPLITS:
        for images, masks in _candidates(other):
            if _are_folders(root, images, masks):
                raise FileNotFoundError(
                    f'{printable(osp.abspath(root))} holds {images} and '
                    f'{masks} for {other!r}, but no such folders for '
                    f'{split!r}: move its images and masks there'
                )
    for images in IMAGE_NAMES:
        for masks in MASK_NAMES:
            if _are_folders(root, images, masks):
                return images, masks, _find_list(root, split)
    raise FileNotFoundError(
        f'{printable(osp.abspath(root))} holds no folder of images with one '
        'of masks. '
        f'Expected e.g. images and masks (also {", ".join(IMAGE_NAMES[1:])}; '
        f'{", ".join(MASK_NAMES[1:])}), or these below {split}. Other names: '
        'data_prefix=dict(img_path=..., seg_map_path=...); set data_root by '
        '--cfg-options data_root=FOLDER'
    )


def _are_folders(root: str, *names: str) -> bool:
    return all(fileio.isdir(osp.join(root, name)) for name in names)


def _find_list(root: str, split: str) -> str | None:
    for name in SPLITS[split]:
        for file in (f'{name}.txt', f'splits/{name}.txt'):
            if fileio.isfile(osp.join(root, file)):
                return file
    return None


def _find_lists(root: str) -> list[str]:
    """The split files of all splits, each once."""
    found = (_find_list(root, split) for split in SPLITS)
    return list(dict.fromkeys(file for file in found if file is not None))
