import warnings

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from mmseg_crackssm.datasets import SyntheticCrackDataset, draw_crack


def test_a_sample_depends_on_its_arguments_alone():
    first = draw_crack(index=3, seed=1, size=64)
    draw_crack(index=8, seed=2, size=64)
    np.random.seed(5)
    cv2.setRNGSeed(5)
    again = draw_crack(index=3, seed=1, size=(64, 64))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for other in (dict(index=4, seed=1), dict(index=3, seed=2)):
        assert not np.array_equal(draw_crack(**other, size=64)[0], first[0])


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    draw_crack(index=0, seed=0, size=64)
    assert np.random.rand() == expected


@pytest.mark.parametrize('size', [32, 64, (48, 96), (97, 61)])
def test_shapes_and_values(size):
    height, width = (size, size) if isinstance(size, int) else size
    for index in range(8):
        img, mask = draw_crack(index=index, seed=0, size=size)
        assert img.shape == (height, width, 3) and img.dtype == np.uint8
        assert mask.shape == (height, width) and mask.dtype == np.uint8
        assert mask.max() <= 1


def test_cracks_are_dark_thin_and_sometimes_absent():
    empty, shares, contrasts = 0, [], []
    for index in range(60):
        img, mask = draw_crack(index=index, seed=0, size=128)
        if not mask.any():
            empty += 1
            continue
        shares.append(mask.mean())
        near = cv2.dilate(mask, np.ones((13, 13), np.uint8)) > mask
        grey = img.mean(axis=-1)
        contrasts.append(grey[near].mean() - grey[mask > 0].mean())
    # 7 % of the images, and a few whose crack lies outside the frame.
    assert 1 <= empty <= 15
    assert 0.005 < np.median(shares) < 0.1 and max(shares) < 0.35
    assert np.mean(np.array(contrasts) > 3) > 0.9


def test_no_sample_has_undefined_values():
    """Small images often have no room for a network of cracks."""
    with np.errstate(all='raise'), warnings.catch_warnings():
        warnings.simplefilter('error')
        for index in range(300):
            img, _ = draw_crack(index=index, seed=4, size=32)
            assert img.mean() > 20


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(index=-1),
        dict(index=0, seed=-1),
        dict(index=0, size=16),
        dict(index=0, size=(64, 64, 3)),
        dict(index=0, size='64'),
        dict(index=0, clarity=1.5),
        dict(index=1.0),
    ],
)
def test_bad_arguments(kwargs):
    with pytest.raises(ValueError, match='got'):
        draw_crack(**kwargs)


def test_dataset():
    init_default_scope('mmseg')
    dataset = DATASETS.build(
        dict(
            type='SyntheticCrackDataset',
            num_samples=5,
            seed=7,
            size=(64, 48),
            pipeline=[
                dict(type='LoadSyntheticCrack'),
                dict(type='PackSegInputs'),
            ],
        )
    )
    assert len(dataset) == 5
    info = dataset.get_data_info(2)
    assert info['img_path'] == 'synthetic/7/2'
    sample = dataset[2]
    img, mask = draw_crack(index=2, seed=7, size=(64, 48))
    np.testing.assert_array_equal(
        sample['inputs'].numpy(), img.transpose(2, 0, 1)
    )
    data_sample = sample['data_samples']
    np.testing.assert_array_equal(data_sample.gt_sem_seg.data[0].numpy(), mask)
    assert data_sample.ori_shape == (64, 48)
    assert dataset.metainfo['classes'] == ('background', 'crack')


@pytest.mark.parametrize(
    ('argument', 'value'),
    [
        ('num_samples', 0),
        ('num_samples', 1.5),
        ('size', 8),
        ('size', 64.5),
        ('size', None),
        ('clarity', 2),
        ('clarity', -0.1),
        ('clarity', 'high'),
        ('seed', -1),
        ('seed', None),
    ],
)
def test_dataset_rejects_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f'{argument} must .* got'):
        SyntheticCrackDataset(**{argument: value})
