"""Benchmarks in the layout in which they are released."""

import logging
import os.path as osp
from typing import NamedTuple

import mmengine.fileio as fileio
from mmengine.logging import print_log

from .crack_dataset import CrackDataset


class Split(NamedTuple):
    """Where a part of a release lies.

    Attributes:
        folders: Image folder and mask folder; several pairs where downloads
            unpack differently. The first whose image folder exists is taken.
        count: Images that it has as released; None if that is not settled.
        ann_file: Split file of the release, or ''.
    """

    folders: tuple[tuple[str, str], ...]
    count: int | None = None
    ann_file: str = ''


def split(
    images: str, masks: str, count: int | None = None, ann_file: str = ''
) -> Split:
    """A split in one place."""
    return Split(((images, masks),), count=count, ann_file=ann_file)


class ReleasedDataset(CrackDataset):
    """A data set with fixed folders; subclasses say which.

    Another number of images than the release has is logged as a warning: the
    download may be incomplete.

    Args:
        split: A key of ``SPLITS``.
        data_root: Folder that holds the release.
        data_prefix: Other folders than those of the split.
        ann_file: Another split file; then no number of images is expected.
        **kwargs: Passed to :class:`CrackDataset`.

    Raises:
        ValueError: If there is no such split.
    """

    NAME = ''
    SPLITS: dict[str, Split] = {}
    IMG_SUFFIX: tuple[str, ...] = ('.jpg',)
    MASK_SUFFIX: tuple[str, ...] = ('.png',)

    def __init__(
        self,
        split: str,
        data_root: str | None = None,
        data_prefix: dict | None = None,
        ann_file: str = '',
        **kwargs,
    ) -> None:
        if split not in self.SPLITS:
            raise ValueError(
                f'split must be one of {tuple(self.SPLITS)}, got {split!r}'
            )
        self.split = split
        part = self.SPLITS[split]
        self._expected = part.count if not ann_file else None
        if data_prefix is None:
            images, masks = self._find_folders(part, data_root or '')
            data_prefix = dict(img_path=images, seg_map_path=masks)
        kwargs.setdefault('img_suffix', self.IMG_SUFFIX)
        kwargs.setdefault('seg_map_suffix', self.MASK_SUFFIX)
        super().__init__(
            ann_file=ann_file or part.ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            **kwargs,
        )

    @staticmethod
    def _find_folders(part: Split, data_root: str) -> tuple[str, str]:
        for images, masks in part.folders:
            if fileio.isdir(osp.join(data_root, images)):
                return images, masks
        return part.folders[0]

    def load_data_list(self) -> list[dict]:
        """Pair the files and compare their number with the release."""
        data_list = super().load_data_list()
        if self._expected not in (None, len(data_list)):
            print_log(
                f'{self.NAME} {self.split} has {len(data_list)} images here, '
                f'{self._expected} in the release',
                logger='current',
                level=logging.WARNING,
            )
        return data_list
