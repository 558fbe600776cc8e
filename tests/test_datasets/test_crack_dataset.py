import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS
from PIL import Image

from mmseg_crackssm.datasets import CrackDataset

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCrackAnnotations'),
    dict(type='PackSegInputs'),
]


def write(path, array):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def photo():
    return np.full((32, 40, 3), 120, dtype=np.uint8)


def mask():
    array = np.zeros((32, 40), dtype=np.uint8)
    array[10:13] = 255
    return array


@pytest.fixture(autouse=True)
def default_scope():
    init_default_scope('mmseg')


@pytest.fixture
def folder(tmp_path):
    for name in ('a', 'b', 'sub/c'):
        write(tmp_path / 'images' / f'{name}.jpg', photo())
        write(tmp_path / 'masks' / f'{name}.png', mask())
    return tmp_path


def build(folder, **kwargs):
    return CrackDataset(data_root=str(folder), **kwargs)


def stems(dataset, folder, key='img_path'):
    return [
        os.path.relpath(dataset.get_data_info(i)[key], folder)
        for i in range(len(dataset))
    ]


def test_pairs_and_pipeline(folder):
    dataset = build(folder, pipeline=PIPELINE)
    assert stems(dataset, folder) == [
        'images/a.jpg',
        'images/b.jpg',
        'images/sub/c.jpg',
    ]
    assert stems(dataset, folder, 'seg_map_path')[2] == 'masks/sub/c.png'
    sample = dataset[0]
    label = sample['data_samples'].gt_sem_seg.data
    assert sample['inputs'].shape == (3, 32, 40)
    assert label.shape == (1, 32, 40)
    # mmseg's own loader makes 255 of the crack, which means "ignore".
    expected = torch.from_numpy(mask() // 255).long()
    torch.testing.assert_close(label[0], expected)


@pytest.mark.parametrize('content', [b'', b'no image', 'half'])
def test_image_that_cannot_be_decoded(folder, content):
    path = folder / 'images' / 'b.jpg'
    if content == 'half':
        write(path.with_suffix('.png'), photo())
        path.unlink()
        path = path.with_suffix('.png')
        content = path.read_bytes()[:60]
    path.write_bytes(content)
    dataset = build(folder, pipeline=PIPELINE)
    with pytest.raises(ValueError) as caught:
        dataset[1]
    for part in (path.name, f'({len(content)} bytes)', 'export it again'):
        assert part in str(caught.value)


def test_other_errors_of_the_pipeline_stay(folder):
    write(folder / 'masks' / 'b.png', mask()[:5])
    with pytest.raises(ValueError, match='5 x 40'):
        build(folder, pipeline=PIPELINE)[1]


def test_registered_with_fixed_classes(folder):
    dataset = DATASETS.build(dict(type='CrackDataset', data_root=str(folder)))
    assert dataset.metainfo['classes'] == ('background', 'crack')
    assert len(dataset.metainfo['palette']) == 2
    with pytest.raises(ValueError, match='fixed'):
        build(folder, metainfo=dict(classes=('crack',)))
    with pytest.raises(ValueError, match='reduce_zero_label'):
        build(folder, reduce_zero_label=True)


def test_suffixes_may_be_several_and_upper_case(tmp_path):
    write(tmp_path / 'images' / 'a.JPG', photo())
    write(tmp_path / 'images' / 'b.png', photo())
    write(tmp_path / 'images' / 'thumb.bmp', photo())
    write(tmp_path / 'masks' / 'a_label.PNG', mask())
    write(tmp_path / 'masks' / 'b_label.png', mask())
    dataset = build(
        tmp_path,
        img_suffix=('.jpg', '.png'),
        seg_map_suffix='_label.png',
    )
    assert stems(dataset, tmp_path) == ['images/a.JPG', 'images/b.png']


def test_images_and_masks_in_one_folder(tmp_path):
    """The layout of CRACK500."""
    write(tmp_path / 'a.jpg', photo())
    write(tmp_path / 'a.png', mask())
    with pytest.raises(ValueError, match='narrow img_suffix'):
        build(tmp_path, data_prefix=dict(img_path='.', seg_map_path='.'))
    dataset = CrackDataset(
        data_prefix=dict(img_path=str(tmp_path), seg_map_path=str(tmp_path)),
        img_suffix='.jpg',
        seg_map_suffix='.png',
    )
    assert len(dataset) == 1


@pytest.mark.parametrize(
    'content',
    [
        b'sub/c\na\n',
        b'sub/c.jpg\na.jpg\n',
        b'\xef\xbb\xbfsub/c\r\n\r\n# comment\r\n  a  \r\n',
        b'sub/c.jpg sub/c.png\na.jpg\ta.png',
        b'sub\\c\na',
    ],
)
def test_split_file(content, folder):
    (folder / 'train.txt').write_bytes(content)
    dataset = build(folder, ann_file='train.txt')
    assert stems(dataset, folder) == ['images/sub/c.jpg', 'images/a.jpg']


def test_split_pairs_files_of_different_names(tmp_path):
    write(tmp_path / 'images' / 'photo 1.jpg', photo())
    write(tmp_path / 'images' / 'x.jpg', photo())
    write(tmp_path / 'masks' / 'photo 1.png', mask())
    write(tmp_path / 'masks' / 'y.png', mask())
    (tmp_path / 's.txt').write_text('photo 1.jpg\nx.jpg y.png\n')
    dataset = build(tmp_path, ann_file='s.txt')
    assert stems(dataset, tmp_path, 'seg_map_path') == [
        'masks/photo 1.png',
        'masks/y.png',
    ]


def test_split_file_with_missing_samples(folder):
    (folder / 's.txt').write_text('a\nzz\nb\n')
    (folder / 'masks' / 'b.png').unlink()
    with pytest.raises(ValueError) as caught:
        build(folder, ann_file='s.txt')
    for part in ('2 of the 3', 'image zz', 'mask b', 's.txt'):
        assert part in str(caught.value)


def test_empty_split_file(folder):
    (folder / 's.txt').write_text('\n')
    with pytest.raises(ValueError, match='names no sample'):
        build(folder, ann_file='s.txt')


def test_unpaired_files_are_named(folder):
    (folder / 'masks' / 'a.png').unlink()
    write(folder / 'masks' / 'z.png', mask())
    with pytest.raises(ValueError) as caught:
        build(folder)
    for part in ('1 images without mask (a.jpg)', 'without image (z.png)'):
        assert part in str(caught.value)
    dataset = build(folder, unpaired='skip')
    assert stems(dataset, folder) == ['images/b.jpg', 'images/sub/c.jpg']


def test_many_unpaired_files_are_shortened(folder):
    for i in range(30):
        write(folder / 'images' / f'n{i:02}.jpg', photo())
    with pytest.raises(ValueError, match='n04.jpg and 25 more'):
        build(folder)


def test_nothing_pairs(tmp_path):
    write(tmp_path / 'images' / 'a.jpg', photo())
    write(tmp_path / 'masks' / 'b.png', mask())
    with pytest.raises(ValueError, match='0 pairs'):
        build(tmp_path, unpaired='skip')
    with pytest.raises(ValueError, match="'error' or 'skip'"):
        build(tmp_path, unpaired='ignore')


def test_missing_folder_and_split(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='image folder .*nowhere'):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='split file .*no.txt'):
        build(folder, ann_file='no.txt')
    with pytest.raises(FileNotFoundError, match='mask folder .*labels'):
        build(
            folder,
            data_prefix=dict(img_path='images', seg_map_path='labels'),
        )


def test_folder_without_images(folder):
    with pytest.raises(FileNotFoundError) as caught:
        build(folder, img_suffix='.tiff')
    assert '.tiff' in str(caught.value)
    assert '3 other files (a.jpg' in str(caught.value)


def test_images_without_masks_need_test_mode(folder):
    prefix = dict(img_path='images')
    with pytest.raises(ValueError, match='training needs masks'):
        build(folder, data_prefix=prefix)
    dataset = build(
        folder, data_prefix=prefix, test_mode=True, pipeline=PIPELINE
    )
    assert len(dataset) == 3
    assert 'gt_sem_seg' not in dataset[0]['data_samples']


def test_file_names_in_windows_1252(tmp_path):
    name = os.fsdecode(b'Stra\xdfe')
    try:
        for kind, array, suffix in (
            ('images', photo(), '.png'),
            ('masks', mask(), '.png'),
        ):
            (tmp_path / kind).mkdir()
            with open(tmp_path / kind / f'{name}{suffix}', 'wb') as file:
                Image.fromarray(array).save(file, 'PNG')
    except OSError:
        pytest.skip('this file system takes UTF-8 names alone')
    (tmp_path / 's.txt').write_bytes(b'Stra\xdfe\n')
    dataset = build(tmp_path, ann_file='s.txt', pipeline=PIPELINE)
    assert dataset[0]['data_samples'].gt_sem_seg.data.sum() == 120
    (tmp_path / 'masks' / f'{name}.png').unlink()
    write(tmp_path / 'masks' / 'other.png', mask())
    with pytest.raises(ValueError) as caught:
        build(tmp_path)
    assert b'Stra' in str(caught.value).encode('utf-8')
