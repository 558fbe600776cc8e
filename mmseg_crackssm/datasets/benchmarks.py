"""Crack benchmarks in the layout of their releases."""

import logging

from mmengine.logging import print_log
from mmseg.registry import DATASETS

from .crack_dataset import CrackDataset


@DATASETS.register_module()
class CrackForestDataset(CrackDataset):
    """CrackForest Dataset (CFD), 118 pavement images of 480 x 320 pixels.

    Shi et al., "Automatic road crack detection using random structured
    forests", IEEE T-ITS 2016. The release keeps its labels in MATLAB files;
    :mod:`mmseg_crackssm.datasets.converters.cfd` writes ``images/``,
    ``masks/`` and ``splits/{train,val,test}.txt``.

    Args:
        ann_file: One of the split files, or '' for all images.
        **kwargs: Passed to :class:`CrackDataset`.
    """

    DOWNLOAD = (
        'the CrackForest Dataset (CFD: Shi et al. 2016; GitHub repository '
        'cuilimeng/CrackForest-dataset), which holds image/*.jpg and '
        'groundTruth/*.mat'
    )
    PREPARE = (
        'Prepare it with: python -m mmseg_crackssm.datasets.converters.cfd '
        'CrackForest-dataset data/CFD (first the release, then data_root)'
    )

    def __init__(self, ann_file: str = '', **kwargs) -> None:
        kwargs.setdefault('img_suffix', '.jpg')
        kwargs.setdefault('seg_map_suffix', '.png')
        super().__init__(ann_file=ann_file, **kwargs)


@DATASETS.register_module()
class TUTDataset(CrackDataset):
    """TUT, 1408 images of cracks in eight kinds of structure.

    Liu et al., "Staircase Cascaded Fusion of Lightweight Local Pattern
    Recognition and Long-Range Dependencies for Structural Crack
    Segmentation", 2024. Used as released: ``{train,val,test}_img/*.jpg``
    and ``{train,val,test}_lab/*.png``. Another number of images than the
    release has is logged as a warning: the download may be incomplete.

    Args:
        split: 'train' (987 images), 'val' (139) or 'test' (282).
        data_prefix: Other folders than those of ``split``.
        **kwargs: Passed to :class:`CrackDataset`.
    """

    DOWNLOAD = (
        'the TUT dataset (Tianjin University of Technology; linked from the '
        'GitHub repositories Karl1109/CrackSCF and Karl1109/SCSegamba)'
    )
    PREPARE = (
        'No conversion is needed: unpack it so that data_root (data/TUT in '
        'the configs) holds train_img, train_lab, val_img, val_lab, test_img '
        'and test_lab, e.g. with: mkdir -p data && unzip TUT.zip -d data'
    )
    NUM_IMAGES = dict(train=987, val=139, test=282)

    def __init__(
        self, split: str, data_prefix: dict | None = None, **kwargs
    ) -> None:
        if split not in self.NUM_IMAGES:
            raise ValueError(
                f'split must be one of {tuple(self.NUM_IMAGES)}, got {split!r}'
            )
        self.split = split
        if data_prefix is None:
            data_prefix = dict(
                img_path=f'{split}_img', seg_map_path=f'{split}_lab'
            )
        kwargs.setdefault('img_suffix', '.jpg')
        kwargs.setdefault('seg_map_suffix', '.png')
        super().__init__(data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Pair the files and compare their number with the release."""
        data_list = super().load_data_list()
        expected = self.NUM_IMAGES[self.split]
        if not self.ann_file and len(data_list) != expected:
            print_log(
                f'TUT {self.split} has {len(data_list)} images here, '
                f'{expected} in the release',
                logger='current',
                level=logging.WARNING,
            )
        return data_list
