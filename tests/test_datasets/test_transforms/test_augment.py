import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from mmseg_crackssm.datasets import (
    RandomCrackCrop,
    RandomDihedral,
)


def sample(shape=(40, 60), crack=(30, 50)):
    """An image whose first channel is 100 times its label."""
    label = np.zeros(shape, dtype=np.uint8)
    if crack is not None:
        label[crack] = 1
    img = np.full((*shape, 3), 120, dtype=np.uint8)
    img[..., 0] = 100 * label
    return dict(img=img, gt_seg_map=label, seg_fields=['gt_seg_map'])


def consistent(results):
    np.testing.assert_array_equal(
        results['img'][..., 0], 100 * results['gt_seg_map']
    )
    assert results['img_shape'] == results['gt_seg_map'].shape
    assert results['img'].flags.c_contiguous
    return results


def test_dihedral_reaches_all_eight():
    label = np.array([[1, 2], [3, 4]], dtype=np.uint8)
    seen = set()
    for _ in range(200):
        results = dict(
            img=np.repeat(label[..., None], 3, axis=-1) * 1,
            gt_seg_map=label,
            seg_fields=['gt_seg_map'],
        )
        RandomDihedral().transform(results)
        np.testing.assert_array_equal(
            results['img'][..., 0], results['gt_seg_map']
        )
        seen.add(results['gt_seg_map'].tobytes())
    assert len(seen) == 8


def test_dihedral_swaps_the_shape_and_can_be_off():
    found = {
        consistent(RandomDihedral().transform(sample()))['img_shape']
        for _ in range(20)
    }
    assert found == {(40, 60), (60, 40)}
    still = RandomDihedral(prob=0).transform(sample())
    np.testing.assert_array_equal(still['img'], sample()['img'])


def test_crack_crop_holds_the_crack():
    """The crack is one pixel in a corner that few plain crops reach."""
    places = set()
    for _ in range(50):
        results = RandomCrackCrop(16, prob=1).transform(sample(crack=(38, 58)))
        assert consistent(results)['img_shape'] == (16, 16)
        assert results['gt_seg_map'].sum() == 1
        places.add(int(results['gt_seg_map'].argmax()))
    # The place of the crack in the crop varies as far as the border lets it.
    assert len(places) == 4
    plain = [
        RandomCrackCrop(16, prob=0)
        .transform(sample(crack=(38, 58)))['gt_seg_map']
        .sum()
        for _ in range(50)
    ]
    assert sum(plain) < 10


def test_crack_crop_places_uniformly():
    inside = {
        int(
            RandomCrackCrop((8, 8), prob=1)
            .transform(sample(crack=(20, 30)))['gt_seg_map']
            .argmax()
        )
        for _ in range(600)
    }
    assert len(inside) == 64


def test_crack_crop_of_small_or_empty_images():
    empty = RandomCrackCrop((16, 24), prob=1).transform(sample(crack=None))
    assert consistent(empty)['img_shape'] == (16, 24)
    small = RandomCrackCrop((64, 24), prob=1).transform(sample())
    assert consistent(small)['img_shape'] == (40, 24)
    assert small['gt_seg_map'].sum() == 1


@pytest.mark.parametrize(
    'call',
    [
        lambda: RandomDihedral(prob=2),
        lambda: RandomCrackCrop(0),
        lambda: RandomCrackCrop((8, 8, 8)),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ValueError, match='got'):
        call()


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='RandomDihedral', prob=0.5),
        dict(type='RandomCrackCrop', crop_size=(16, 16)),
        dict(type='LoadCrackAnnotations'),
        dict(type='LoadSyntheticCrack'),
    ],
)
def test_registered(cfg):
    init_default_scope('mmseg')
    assert cfg['type'] in repr(TRANSFORMS.build(cfg))
