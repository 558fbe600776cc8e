"""A folder of crack images beside a folder of masks."""

import logging
import os.path as osp
from pathlib import PurePath

import cv2
import mmengine.fileio as fileio
import numpy as np
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

#: File name endings tried when none are given; upper case is found as well.
COMMON_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')
#: Names listed in an error before it says how many more there are.
MAX_NAMES = 5


def printable(path: str | PurePath) -> str:
    """A file name that any terminal prints, whatever bytes it is made of."""
    return str(path).encode('utf-8', 'backslashreplace').decode('utf-8')


def list_names(names: list[str]) -> str:
    """The first names, and how many there are besides."""
    text = ', '.join(printable(name) for name in names[:MAX_NAMES])
    more = len(names) - MAX_NAMES
    return f'{text} and {more} more' if more > 0 else text


def strip_suffix(name: str, suffixes: tuple[str, ...]) -> str | None:
    """The name without its longest matching suffix, None if none matches."""
    lower = name.lower()
    for suffix in sorted(suffixes, key=len, reverse=True):
        if lower.endswith(suffix.lower()):
            return name[: len(name) - len(suffix)]
    return None


def take_of_ten(items: list, places: range) -> list:
    """Of each ten items in a row those at some places (0 to 9)."""
    return [item for i, item in enumerate(items) if i % 10 in places]


def _is_decodable(content: bytes) -> bool:
    """Whether OpenCV, which loads the images, reads this file."""
    data = np.frombuffer(content, dtype=np.uint8)
    try:
        return bool(data.size) and (
            cv2.imdecode(data, cv2.IMREAD_UNCHANGED) is not None
        )
    except cv2.error:
        return False


@DATASETS.register_module()
class CrackDataset(BaseSegDataset):
    """Crack images and masks, paired by file name.

    An image ``<name><img_suffix>`` under ``data_prefix['img_path']`` belongs
    to the mask ``<name><seg_map_suffix>`` under
    ``data_prefix['seg_map_path']``; sub-folders are part of the name.
    Suffixes match in upper and lower case. Masks are read by
    ``LoadCrackAnnotations``, which says what it accepts.

    Without ``seg_map_path`` in ``data_prefix`` the dataset has images alone,
    for prediction; this needs ``test_mode=True``.

    Args:
        ann_file: Split file, one sample per line: a name with or without
            its suffix, or an image and a mask separated by white space.
            Empty lines and lines starting with ``#`` are skipped. Without a
            split file all files of the two folders are taken.
        img_suffix: Ending of the image files, or several.
        seg_map_suffix: Ending of the masks, or several, e.g. '_mask.png'.
        data_root: Folder that relative paths start from.
        data_prefix: The folders, keys ``img_path`` and ``seg_map_path``.
        unpaired: What to do, without a split file, about an image without
            mask or a mask without image: 'error', or 'skip' them with a
            warning. A name in a split file must always have both.
        **kwargs: Passed to ``BaseSegDataset``.

    Raises:
        FileNotFoundError: If a folder or the split file is missing, or holds
            no image; says what to download and how to prepare it.
        ValueError: If files cannot be paired; names them.
    """

    METAINFO = dict(
        classes=('background', 'crack'), palette=[[0, 0, 0], [255, 0, 0]]
    )
    #: What to download, and the steps that prepare it (subclasses).
    DOWNLOAD = ''
    PREPARE = ''

    def __init__(
        self,
        ann_file: str = '',
        img_suffix: str | tuple[str, ...] = COMMON_SUFFIXES,
        seg_map_suffix: str | tuple[str, ...] = COMMON_SUFFIXES,
        data_root: str | None = None,
        data_prefix: dict | None = None,
        unpaired: str = 'error',
        **kwargs,
    ) -> None:
        if unpaired not in ('error', 'skip'):
            raise ValueError(
                f"unpaired must be 'error' or 'skip', got {unpaired!r}"
            )
        if kwargs.get('reduce_zero_label'):
            raise ValueError(
                'reduce_zero_label=True would make the background "ignore" '
                'and leave a single class; crack masks have two'
            )
        self.unpaired = unpaired
        if data_prefix is None:
            data_prefix = dict(img_path='images', seg_map_path='masks')
        super().__init__(
            ann_file=ann_file,
            img_suffix=self._as_tuple('img_suffix', img_suffix),
            seg_map_suffix=self._as_tuple('seg_map_suffix', seg_map_suffix),
            data_root=data_root,
            data_prefix=data_prefix,
            **kwargs,
        )
        if self.label_map is not None:
            raise ValueError(
                'the classes of a crack dataset are fixed to '
                f'{self.METAINFO["classes"]}, got '
                f'{self._metainfo["classes"]}'
            )

    @staticmethod
    def _as_tuple(name: str, suffix: str | tuple[str, ...]) -> tuple[str, ...]:
        suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix)
        if not suffixes or not all(suffixes):
            raise ValueError(
                f'{name} must be an ending such as ".png" or several, got '
                f'{suffix!r}'
            )
        return suffixes

    def load_data_list(self) -> list[dict]:
        """Find and pair the files.

        Returns:
            One dict per sample: ``img_path``, ``seg_map_path`` (if there are
            masks), ``label_map``, ``reduce_zero_label``, ``seg_fields``.
        """
        img_dir = self.data_prefix.get('img_path')
        mask_dir = self.data_prefix.get('seg_map_path')
        if not img_dir:
            raise ValueError(
                "data_prefix must name the image folder under 'img_path', "
                f'got {self.data_prefix}'
            )
        if not mask_dir and not self.test_mode:
            raise ValueError(
                'training needs masks: give their folder in data_prefix '
                "under 'seg_map_path', or set test_mode=True to predict on "
                'images alone'
            )
        images = self._list_folder(
            img_dir, 'image folder', self.img_suffix, 'img_suffix'
        )
        masks = None
        if mask_dir:
            masks = self._list_folder(
                mask_dir, 'mask folder', self.seg_map_suffix, 'seg_map_suffix'
            )
        if self.ann_file:
            pairs = self._pair_split(images, masks)
        else:
            pairs = self._pair_all(images, masks)

        data_list = []
        for image, mask in pairs:
            info = dict(img_path=osp.join(img_dir, image))
            if mask is not None:
                info['seg_map_path'] = osp.join(mask_dir, mask)
            info['label_map'] = None
            info['reduce_zero_label'] = False
            info['seg_fields'] = []
            data_list.append(info)
        return data_list

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on one sample.

        Raises:
            ValueError: If its image cannot be decoded; names it.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            # What loads images raises assertions without the file's name.
            path = self.get_data_info(idx)['img_path']
            content = fileio.get(path, backend_args=self.backend_args)
            if _is_decodable(content):
                raise
            raise ValueError(
                f'the image {printable(path)} cannot be decoded '
                f'({len(content)} bytes): download or export it again. '
                'tools/check_dataset.py lists all such files'
            ) from error

    def _missing(self, what: str, path: str) -> FileNotFoundError:
        lines = [f'the {what} {printable(osp.abspath(path))} does not exist.']
        if self.DOWNLOAD:
            lines.append(f'Download {self.DOWNLOAD}.')
        lines.append(
            self.PREPARE
            or 'Check data_root, data_prefix and ann_file in the config; '
            'relative paths start from the working directory.'
        )
        return FileNotFoundError(' '.join(lines))

    def _list_folder(
        self, folder: str, what: str, suffixes: tuple[str, ...], argument: str
    ) -> dict[str, str]:
        """Map names without suffix to file names, relative to the folder."""
        if not fileio.isdir(folder, backend_args=self.backend_args):
            raise self._missing(what, folder)
        files: dict[str, str] = {}
        others = []
        for file in fileio.list_dir_or_file(
            dir_path=folder,
            list_dir=False,
            recursive=True,
            backend_args=self.backend_args,
        ):
            stem = strip_suffix(file, suffixes)
            if stem is None:
                others.append(file)
                continue
            # One name on every system: split files use forward slashes.
            stem = stem.replace('\\', '/')
            if stem in files:
                raise ValueError(
                    f'{printable(files[stem])} and {printable(file)} in the '
                    f'{what} {printable(folder)} have the same name; narrow '
                    f'{argument} (now {suffixes}) to one of them'
                )
            files[stem] = file
        if not files:
            found = (
                f'it holds {len(others)} other files '
                f'({list_names(sorted(others))})'
                if others
                else 'it is empty'
            )
            hint = f'Download {self.DOWNLOAD}. ' if self.DOWNLOAD else ''
            raise FileNotFoundError(
                f'no file in the {what} {printable(osp.abspath(folder))} '
                f'ends in {" or ".join(suffixes)}: {found}. {hint}'
                f'{self.PREPARE or f"Set {argument}."}'
            )
        return files

    def _pair_all(
        self, images: dict[str, str], masks: dict[str, str] | None
    ) -> list[tuple[str, str | None]]:
        """Pair everything in the two folders."""
        if masks is None:
            return [(images[stem], None) for stem in sorted(images)]
        common = sorted(images.keys() & masks.keys())
        lone_images = sorted(images[s] for s in images.keys() - masks.keys())
        lone_masks = sorted(masks[s] for s in masks.keys() - images.keys())
        problems = []
        if lone_images:
            problems.append(
                f'{len(lone_images)} images without mask '
                f'({list_names(lone_images)})'
            )
        if lone_masks:
            problems.append(
                f'{len(lone_masks)} masks without image '
                f'({list_names(lone_masks)})'
            )
        if problems:
            message = (
                f'{" and ".join(problems)}; {len(common)} pairs in '
                f'{printable(self.data_prefix["img_path"])} and '
                f'{printable(self.data_prefix["seg_map_path"])}'
            )
            if self.unpaired == 'error' or not common:
                raise ValueError(
                    f'{message}. Add the missing files, check img_suffix='
                    f'{self.img_suffix} and seg_map_suffix='
                    f'{self.seg_map_suffix}, name the samples in a split '
                    "file (ann_file), or leave these out with unpaired='skip'"
                )
            print_log(
                f'{message}: skipped', logger='current', level=logging.WARNING
            )
        return [(images[stem], masks[stem]) for stem in common]

    def _pair_split(
        self, images: dict[str, str], masks: dict[str, str] | None
    ) -> list[tuple[str, str | None]]:
        """Pair the samples that the split file names, in its order."""
        names = self._read_split(self.ann_file)
        if not names:
            raise ValueError(
                f'the split file {printable(self.ann_file)} names no sample'
            )
        pairs, absent = [], []
        for image_name, mask_name in names:
            image = images.get(image_name)
            mask = None if masks is None else masks.get(mask_name)
            if image is None:
                absent.append(f'image {image_name}')
            elif masks is not None and mask is None:
                absent.append(f'mask {mask_name}')
            else:
                pairs.append((image, mask))
        if absent:
            looked = (
                f'{printable(self.data_prefix["img_path"])} for names ending '
                f'in {" or ".join(self.img_suffix)}'
            )
            if masks is not None:
                looked += (
                    f' and in {printable(self.data_prefix["seg_map_path"])} '
                    f'for {" or ".join(self.seg_map_suffix)}'
                )
            raise ValueError(
                f'{len(absent)} of the {len(names)} samples in '
                f'{printable(self.ann_file)} are incomplete, missing: '
                f'{list_names(absent)}. Looked in {looked}'
            )
        return pairs

    def _read_split(self, path: str) -> list[tuple[str, str]]:
        """Names of image and mask, without suffix, in a split file."""
        if not fileio.isfile(path, backend_args=self.backend_args):
            raise self._missing('split file', path)
        content = fileio.get(path, backend_args=self.backend_args)
        # File names need not be UTF-8; the file system's own escapes keep
        # any bytes. An editor may have put a byte order mark in front.
        text = content.decode('utf-8-sig', errors='surrogateescape')
        names = []
        for line in text.split('\n'):
            line = line.strip().replace('\\', '/')
            if not line or line.startswith('#'):
                continue
            fields = line.split()
            if len(fields) == 2:
                image = strip_suffix(fields[0], self.img_suffix)
                mask = strip_suffix(fields[1], self.seg_map_suffix)
                if image is not None and mask is not None:
                    names.append((image, mask))
                    continue
            stem = strip_suffix(line, self.img_suffix)
            stem = line if stem is None else stem
            names.append((stem, stem))
        return names
