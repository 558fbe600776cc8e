"""Crack benchmarks in the layout of their releases."""

from mmseg.registry import DATASETS

from .crack_dataset import CrackDataset, take_of_ten
from .released_dataset import ReleasedDataset, Split, split

#: What tools/dataset_converters/pairs.py writes, for the sets whose releases
#: are not image + mask pairs of one name and size.
PAIRS = 'python -m mmseg_crackssm.datasets.converters.pairs'
FPHBN = 'GitHub repository fyangneil/pavement-crack-detection'
ZOU = 'GitHub repository qinnzou/DeepCrack'


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
class TUTDataset(ReleasedDataset):
    """TUT, 1408 images of cracks in eight kinds of structure.

    Liu et al., "Staircase Cascaded Fusion of Lightweight Local Pattern
    Recognition and Long-Range Dependencies for Structural Crack
    Segmentation", arXiv:2408.12815, 2024. Used as released.
    """

    NAME = 'TUT'
    SPLITS = {
        'train': split('train_img', 'train_lab', 987),
        'val': split('val_img', 'val_lab', 139),
        'test': split('test_img', 'test_lab', 282),
    }
    DOWNLOAD = (
        'the TUT dataset (Tianjin University of Technology; linked from the '
        'GitHub repositories Karl1109/CrackSCF and Karl1109/SCSegamba)'
    )
    PREPARE = (
        'No conversion is needed: unpack it so that data_root (data/TUT in '
        'the configs) holds train_img, train_lab, val_img, val_lab, test_img '
        'and test_lab, e.g. with: mkdir -p data && unzip TUT.zip -d data'
    )


@DATASETS.register_module()
class Crack500Dataset(ReleasedDataset):
    """Crack500, 3368 crops of 500 photographs of pavement.

    Zhang et al., ICIP 2016; Yang et al., "Feature Pyramid and Hierarchical
    Boosting Network for Pavement Crack Detection", IEEE T-ITS 21(4), 2020.
    Image and mask of a crop lie in one folder. Crops are 640 x 360, 360 x 640
    and 648 x 484.
    """

    NAME = 'Crack500'
    SPLITS = {
        'train': split('traincrop', 'traincrop', 1896),
        'val': split('valcrop', 'valcrop', 348),
        'test': split('testcrop', 'testcrop', 1124),
    }
    DOWNLOAD = f'Crack500 ({FPHBN})'
    PREPARE = (
        'No conversion is needed: unpack traincrop.zip, valcrop.zip and '
        'testcrop.zip in data_root (data/CRACK500 in the configs)'
    )


@DATASETS.register_module()
class DeepCrackDataset(ReleasedDataset):
    """DeepCrack, 537 images of 544 x 384 or 384 x 544.

    Liu et al., "DeepCrack: A Deep Hierarchical Feature Learning Architecture
    for Crack Segmentation", Neurocomputing 338, 2019. It has no validation
    split. Zou et al.'s network of the same name is another work; its data
    sets are CrackTree260, CRKWH100, CrackLS315 and Stone331.
    """

    NAME = 'DeepCrack'
    SPLITS = {
        'train': split('train_img', 'train_lab', 300),
        'test': split('test_img', 'test_lab', 237),
    }
    DOWNLOAD = 'DeepCrack (GitHub repository yhlleo/DeepCrack)'
    PREPARE = (
        'No conversion is needed: unpack dataset/DeepCrack.zip in data_root '
        '(data/DeepCrack in the configs), which then holds train_img, '
        'train_lab, test_img and test_lab'
    )


@DATASETS.register_module()
class SteelCrackDataset(ReleasedDataset):
    """SteelCrack, 4355 images of steel of 512 x 512.

    He et al., "Crack segmentation on steel structures using boundary
    guidance model", Automation in Construction 162, 2024 (arXiv:2306.09196).
    The authors' code reads ``Validation``; copies with ``Val`` are about.
    """

    NAME = 'SteelCrack'
    SPLITS = {
        'train': split('Train/images', 'Train/masks', 3300),
        'val': Split(
            (
                ('Validation/images', 'Validation/masks'),
                ('Val/images', 'Val/masks'),
            ),
            count=525,
        ),
        'test': split('Test/images', 'Test/masks', 530),
    }
    IMG_SUFFIX = ('.png', '.jpg')
    DOWNLOAD = 'SteelCrack (GitHub repository hzlbbfrog/Civil-dataset)'
    PREPARE = (
        'No conversion is needed: unpack it so that data_root '
        '(data/Steelcrack in the configs) holds Train, Validation and Test'
    )


@DATASETS.register_module()
class CrackMapDataset(ReleasedDataset):
    """CrackMap, 120 images of roads.

    Katsamenis et al., "A Few-Shot Attention Recurrent Residual U-Net for
    Crack Segmentation", arXiv:2303.01582, 2023. The release has no split;
    published figures are on 7:1:2 divisions of their authors' own. Here, of
    the names in order, each seventh to tenth of ten go to val, test and test.
    """

    NAME = 'CrackMap'
    SPLITS = {
        'train': split('images', 'masks', 84),
        'val': split('images', 'masks', 12),
        'test': split('images', 'masks', 24),
    }
    IMG_SUFFIX = ('.png',)
    #: Of ten images in a row, those that a split takes.
    TENTHS = {'train': range(7), 'val': range(7, 8), 'test': range(8, 10)}
    DOWNLOAD = 'CrackMap (GitHub repository ikatsamenis/CrackMap)'
    PREPARE = (
        'No conversion is needed: data_root (data/CrackMap in the configs) '
        'is a clone, with images and masks'
    )

    def _pair_all(
        self, images: dict[str, str], masks: dict[str, str] | None
    ) -> list[tuple[str, str | None]]:
        pairs = super()._pair_all(images, masks)
        return take_of_ten(pairs, self.TENTHS[self.split])


@DATASETS.register_module()
class CrackSeg9kDataset(ReleasedDataset):
    """CrackSeg9k, some 9160 images of 400 x 400 out of ten data sets.

    Kulkarni et al., "CrackSeg9k: A Collection and Benchmark for Crack
    Segmentation Datasets and Frameworks", ECCV Workshops 2022. The number of
    images differs between its versions (9255 in the paper), so none is
    expected. Its masks have soft edges: load them with a threshold.
    """

    NAME = 'CrackSeg9k'
    SPLITS = {
        'train': split('images', 'masks', ann_file='splits/train.txt'),
        'test': split('images', 'masks', ann_file='splits/test.txt'),
    }
    IMG_SUFFIX = ('.png', '.jpg')
    DOWNLOAD = 'CrackSeg9k (Harvard Dataverse, doi 10.7910/DVN/EGIEBY)'
    PREPARE = (
        'Prepare it with: python -m '
        'mmseg_crackssm.datasets.converters.crackseg9k RELEASE '
        'data/CrackSeg9k (the folder with Final-Dataset-Vol1 and -Vol2)'
    )


@DATASETS.register_module()
class GAPs384Dataset(ReleasedDataset):
    """GAPs384, 509 crops of 384 images of German asphalt.

    Eisenbach et al., IJCNN 2017; labels by Yang et al. (see Crack500), who
    test on all of it. The prefixes ``train_`` and ``test_`` of its files are
    no split.
    """

    NAME = 'GAPs384'
    SPLITS = {
        'all': Split(
            (
                ('croppedimg/croppedimg', 'croppedgt/croppedgt'),
                ('croppedimg', 'croppedgt'),
            ),
            count=509,
        )
    }
    DOWNLOAD = f'GAPs384 ({FPHBN})'
    PREPARE = (
        'No conversion is needed: unpack croppedimg.zip and croppedgt.zip in '
        'data_root (data/GAPS384 in the configs)'
    )


@DATASETS.register_module()
class CrackTree206Dataset(ReleasedDataset):
    """CrackTree206 (also called CrackTree200), 206 images of 800 x 600.

    Zou et al., "CrackTree: Automatic crack detection from pavement images",
    Pattern Recognition Letters 33(3), 2012. Part of CrackTree260.
    """

    NAME = 'CrackTree206'
    SPLITS = {
        'all': Split(
            (
                (
                    'cracktree200rgb/cracktree200rgb',
                    'cracktree200_gt/cracktree200_gt',
                ),
                ('cracktree200rgb', 'cracktree200_gt'),
            ),
            count=206,
        )
    }
    DOWNLOAD = f'cracktree200 ({FPHBN})'
    PREPARE = (
        'No conversion is needed: unpack cracktree200rgb.zip and '
        'cracktree200_gt.zip in data_root (data/CrackTree206 in the configs)'
    )


class _ZouDataset(ReleasedDataset):
    """Sets of Zou et al., "DeepCrack: Learning Hierarchical Convolutional
    Features for Crack Detection", IEEE TIP 28(3), 2019.

    Images and labels are separate downloads without common folders; labels
    are lines of one pixel. There is no split: CrackTree260 is for training,
    the others for tests.
    """

    IMG_SUFFIX = ('.jpg', '.png')
    MASK_SUFFIX = ('.bmp', '.png')


@DATASETS.register_module()
class CrackTree260Dataset(_ZouDataset):
    """CrackTree260, 260 images, most of 800 x 600 (Zou et al., 2019)."""

    NAME = 'CrackTree260'
    SPLITS = {'all': split('images', 'masks', 260)}
    DOWNLOAD = f'CrackTree260 ({ZOU})'
    PREPARE = (
        'No conversion is needed: put its images into images and its ground '
        'truth into masks below data_root (data/CrackTree260 in the configs)'
    )


@DATASETS.register_module()
class CRKWH100Dataset(_ZouDataset):
    """CRKWH100, 100 images of pavement, 512 x 512 (Zou et al., 2019)."""

    NAME = 'CRKWH100'
    SPLITS = {'all': split('images', 'masks', 100)}
    DOWNLOAD = f'CRKWH100 ({ZOU})'
    PREPARE = (
        'No conversion is needed: put its images into images and its ground '
        'truth into masks below data_root (data/CRKWH100 in the configs)'
    )


@DATASETS.register_module()
class CrackLS315Dataset(_ZouDataset):
    """CrackLS315, 315 laser-lit images, 512 x 512 (Zou et al., 2019)."""

    NAME = 'CrackLS315'
    SPLITS = {'all': split('images', 'masks', 315)}
    DOWNLOAD = f'CrackLS315 ({ZOU})'
    PREPARE = (
        'No conversion is needed: put its images into images and its ground '
        'truth into masks below data_root (data/CrackLS315 in the configs)'
    )


@DATASETS.register_module()
class Stone331Dataset(_ZouDataset):
    """Stone331, 331 images of stone, labels of 512 x 512 (Zou et al., 2019).

    The images are 1024 x 1024. The release's third folder, its masks, is the
    area of the stone and not the label.
    """

    NAME = 'Stone331'
    SPLITS = {'all': split('images', 'masks', 331)}
    DOWNLOAD = f'Stone331 ({ZOU})'
    PREPARE = (
        f'Prepare it with: {PAIRS} IMAGES GROUND_TRUTH data/Stone331 '
        '--resize-images'
    )


class _AmhazDataset(ReleasedDataset):
    """Sets of Amhaz et al., "Automatic Crack Detection on Two-Dimensional
    Pavement Images", IEEE T-ITS 17(10), 2016.

    Names of images and labels differ, and cracks are black in the labels:
    the converter mends both. There is no split.
    """

    IMG_SUFFIX = ('.png', '.jpg')


@DATASETS.register_module()
class AigleRNDataset(_AmhazDataset):
    """AigleRN, 38 images, 991 x 462 and 311 x 462 (Amhaz et al., 2016)."""

    NAME = 'AigleRN'
    SPLITS = {'all': split('images', 'masks', 38)}
    DOWNLOAD = 'the CrackDataset of Amhaz et al. (IRIT Toulouse)'
    PREPARE = (
        f'Prepare it with: {PAIRS} IMAGES/AIGLE_RN GROUND_TRUTH/AIGLE_RN '
        'data/AigleRN --img-prefix Im_GT_ --img-suffix or.png or.jpg '
        '--mask-prefix GT_ --invert'
    )


@DATASETS.register_module()
class ESARDataset(_AmhazDataset):
    """ESAR, 15 images of pavement of 768 x 512 (Amhaz et al., 2016)."""

    NAME = 'ESAR'
    SPLITS = {'all': split('images', 'masks', 15)}
    DOWNLOAD = AigleRNDataset.DOWNLOAD
    PREPARE = (
        f'Prepare it with: {PAIRS} IMAGES/ESAR GROUND_TRUTH/ESAR data/ESAR '
        '--img-prefix Im_GT_ --mask-prefix GT_ --invert'
    )
