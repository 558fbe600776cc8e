"""Whether a mask lies on its image as the image is loaded."""

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from PIL import Image

from mmseg_crackssm.datasets import LoadCrackAnnotations

EXPECTED = np.zeros((48, 64), dtype=np.uint8)
EXPECTED[20:26, 8:56] = 1


def test_size_mismatch_names_both_files(tmp_path):
    Image.fromarray(EXPECTED * 255).save(tmp_path / 'mask.png')
    results = dict(
        img_path='photo.jpg',
        seg_map_path=str(tmp_path / 'mask.png'),
        ori_shape=(48, 60),
    )
    with pytest.raises(ValueError) as caught:
        LoadCrackAnnotations().transform(results)
    for part in ('photo.jpg', 'mask.png', '48 x 64', '48 x 60', 'EXIF'):
        assert part in str(caught.value)


def test_exif_orientation_is_named_and_the_remedy_works(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to display
    photo = Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8))
    photo.save(tmp_path / 'photo.jpg', exif=exif)
    Image.fromarray(EXPECTED * 255).save(tmp_path / 'mask.png')
    results = dict(
        img_path=str(tmp_path / 'photo.jpg'),
        seg_map_path=str(tmp_path / 'mask.png'),
    )
    load_both = Compose([LoadImageFromFile(), LoadCrackAnnotations()])
    with pytest.raises(ValueError, match='color_ignore_orientation'):
        load_both(dict(results))
    load_both = Compose(
        [
            LoadImageFromFile(color_type='color_ignore_orientation'),
            LoadCrackAnnotations(),
        ]
    )
    np.testing.assert_array_equal(
        load_both(dict(results))['gt_seg_map'], EXPECTED
    )


def _oriented(tmp_path, orientation, size=(64, 48)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.new('RGB', size)
    photo.save(tmp_path / 'photo.JPG', exif=exif)
    mask = np.zeros(size[::-1], dtype=np.uint8)
    mask[:5] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    return dict(
        img_path=str(tmp_path / 'photo.JPG'),
        seg_map_path=str(tmp_path / 'mask.png'),
    )


@pytest.mark.parametrize(
    ('orientation', 'size'),
    [(2, (64, 48)), (3, (64, 48)), (4, (64, 48)), (6, (48, 48))],
)
def test_orientation_that_no_size_shows_is_refused(
    orientation, size, tmp_path
):
    results = _oriented(tmp_path, orientation, size)
    match = f'photo.JPG .*orientation {orientation}.*trust_orientation'
    for color_type in ('color', 'color_ignore_orientation'):
        loader = LoadImageFromFile(color_type=color_type)
        with pytest.raises(ValueError, match=match):
            Compose([loader, LoadCrackAnnotations()])(dict(results))
        trusted = LoadCrackAnnotations(trust_orientation=True)
        loaded = Compose([loader, trusted])(dict(results))['gt_seg_map']
        assert loaded[:5].all() and not loaded[5:].any()


def test_upright_and_turned_masks_pass_the_orientation_check(tmp_path):
    load_both = Compose([LoadImageFromFile(), LoadCrackAnnotations()])
    for orientation in (0, 1, 9):
        results = _oriented(tmp_path, orientation)
        assert load_both(results)['gt_seg_map'][:5].all()
    # The mask is turned in the same way.
    results = _oriented(tmp_path, 3)
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(results['seg_map_path']) as mask:
        mask.load()
    mask.save(results['seg_map_path'], exif=exif)
    assert load_both(results)['gt_seg_map'][-5:].all()
