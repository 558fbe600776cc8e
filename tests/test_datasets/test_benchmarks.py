from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_crackssm.datasets import CrackForestDataset, TUTDataset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/_base_/datasets'


def write_pair(image, label, size=(64, 48)):
    width, height = size
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (120, 120, 120)).save(image)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 2 :][:4] = 255
    Image.fromarray(mask).save(label)


@pytest.fixture
def tut(tmp_path):
    for split, count in (('train', 3), ('val', 2), ('test', 1)):
        for i in range(count):
            write_pair(
                tmp_path / f'{split}_img' / f'{i}.jpg',
                tmp_path / f'{split}_lab' / f'{i}.png',
            )
    return tmp_path


@pytest.fixture
def cfd(tmp_path):
    for name in ('001', '002', '004'):
        write_pair(
            tmp_path / 'images' / f'{name}.jpg',
            tmp_path / 'masks' / f'{name}.png',
            size=(480, 320),
        )
    (tmp_path / 'splits').mkdir()
    (tmp_path / 'splits/train.txt').write_text('001\n004\n')
    (tmp_path / 'splits/val.txt').write_text('002\n')
    return tmp_path


def test_tut_splits(tut):
    for split, count in (('train', 3), ('val', 2), ('test', 1)):
        dataset = TUTDataset(split=split, data_root=str(tut))
        assert len(dataset) == count
        assert f'{split}_img' in dataset.get_data_info(0)['img_path']
    with pytest.raises(ValueError, match='split'):
        TUTDataset(split='trainval', data_root=str(tut))


def test_tut_says_when_images_are_missing(tut, monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmseg_crackssm.datasets.released_dataset.print_log',
        lambda message, **kwargs: logged.append(message),
    )
    TUTDataset(split='val', data_root=str(tut))
    assert logged == ['TUT val has 2 images here, 139 in the release']
    as_here = TUTDataset.SPLITS['val']._replace(count=2)
    monkeypatch.setitem(TUTDataset.SPLITS, 'val', as_here)
    TUTDataset(split='val', data_root=str(tut))
    assert len(logged) == 1


def test_missing_data_says_what_to_do(tmp_path):
    root = str(tmp_path / 'absent')
    with pytest.raises(FileNotFoundError) as caught:
        TUTDataset(split='train', data_root=root)
    for part in ('train_img', 'Download the TUT dataset', 'unzip'):
        assert part in str(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        CrackForestDataset(data_root=root)
    for part in (
        'CrackForest Dataset',
        'python -m mmseg_crackssm.datasets.converters.cfd ',
    ):
        assert part in str(caught.value)


def test_cfd_splits(cfd):
    dataset = CrackForestDataset(
        ann_file='splits/train.txt', data_root=str(cfd)
    )
    assert [Path(d['img_path']).stem for d in dataset] == ['001', '004']
    assert len(CrackForestDataset(data_root=str(cfd))) == 3


def built_loaders(config, data_root=None):
    """First sample of each dataloader of a dataset config."""
    cfg = Config.fromfile(CONFIGS / config)
    init_default_scope('mmseg')
    samples = {}
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        assert loader.persistent_workers and loader.num_workers == 2
        if data_root is not None:
            loader.dataset.data_root = str(data_root)
        dataset = DATASETS.build(loader.dataset)
        assert dataset.test_mode == (name != 'train')
        samples[name] = dataset[0]
    for name in ('val', 'test'):
        kinds = [metric.type for metric in cfg[f'{name}_evaluator']]
        assert kinds == ['CrackMetric', 'IoUMetric']
    return samples, cfg


def shapes(sample):
    label = sample['data_samples'].gt_sem_seg.data
    assert set(label.unique().tolist()) <= {0, 1, 255}
    return tuple(sample['inputs'].shape[1:]), tuple(label.shape[1:])


def test_cfd_config(cfd):
    samples, cfg = built_loaders('cfd_320x320.py', data_root=cfd)
    assert shapes(samples['train']) == ((320, 320), (320, 320))
    assert shapes(samples['val']) == ((320, 480), (320, 480))
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'


def test_tut_config(tut):
    samples, cfg = built_loaders('tut_448x448.py', data_root=tut)
    assert cfg.train_dataloader.batch_size == 16
    assert shapes(samples['train']) == ((448, 448), (448, 448))
    # The label stays at its own size, where scores are taken.
    for name in ('val', 'test'):
        assert shapes(samples[name]) == ((448, 448), (48, 64))


def test_synthetic_config():
    samples, cfg = built_loaders('synthetic_256x256.py')
    for name in ('train', 'val', 'test'):
        assert shapes(samples[name]) == ((256, 256), (256, 256))
    assert cfg.train_dataloader.dataset.seed != cfg.val_dataloader.dataset.seed
