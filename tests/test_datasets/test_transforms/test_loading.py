import io
import os

import numpy as np
import pytest
from PIL import Image

from mmseg_crackssm.datasets import LoadCrackAnnotations

EXPECTED = np.zeros((48, 64), dtype=np.uint8)
EXPECTED[20:26, 8:56] = 1


def grey(mask=EXPECTED, values=(0, 255)):
    return Image.fromarray(np.asarray(values, np.uint8)[mask])


def with_palette(palette, indices=EXPECTED):
    image = Image.fromarray(indices, mode=None).convert('P')
    image.putdata(indices.ravel().tolist())
    image.putpalette(np.ravel(palette).astype(np.uint8).tolist())
    return image


def with_alpha(image, alpha):
    image = image.convert('RGBA')
    image.putalpha(Image.fromarray(alpha))
    return image


def load(image, tmp_path, name='mask.png', save=None, **kwargs):
    path = tmp_path / name
    image.save(path, **(save or {}))
    results = dict(seg_map_path=str(path), seg_fields=[])
    out = LoadCrackAnnotations(**kwargs).transform(results)
    assert out['seg_fields'] == ['gt_seg_map']
    assert out['gt_seg_map'].dtype == np.uint8
    return out['gt_seg_map']


ACCEPTED = {
    '0/1': grey(values=(0, 1)),
    '0/255': grey(),
    '1-bit': grey().convert('1'),
    'rgb': grey().convert('RGB'),
    'rgb 0/1': grey(values=(0, 1)).convert('RGB'),
    'rgba opaque': grey().convert('RGBA'),
    'alpha is the mask': with_alpha(grey(), EXPECTED * 255),
    'grey and alpha': grey().convert('LA'),
    '16 bit 0/1': Image.fromarray(EXPECTED.astype(np.uint16)),
    '16 bit 0/65535': Image.fromarray(EXPECTED.astype(np.uint16) * 65535),
    'palette black, white': with_palette([[0, 0, 0], [255, 255, 255]]),
    # As Pillow's quantize() writes it: the order of the entries is free.
    'palette white, black': with_palette(
        [[255, 255, 255], [0, 0, 0]], indices=1 - EXPECTED
    ),
    'palette black, red': with_palette([[0, 0, 0], [128, 0, 0]]),
}


@pytest.mark.parametrize('kind', ACCEPTED)
def test_clear_masks_are_understood(kind, tmp_path):
    np.testing.assert_array_equal(load(ACCEPTED[kind], tmp_path), EXPECTED)


# A line that wanders, so that JPEG does not hit it with a block.
WANDERING = np.zeros((96, 128), dtype=np.uint8)
for _x in range(128):
    _y = int(40 + 20 * np.sin(_x / 17))
    WANDERING[_y : _y + 5, _x] = 1


@pytest.mark.parametrize('mode', ['L', 'RGB'])
@pytest.mark.parametrize('quality', [60, 95])
def test_jpeg_masks_are_thresholded(mode, quality, tmp_path):
    image = grey(mask=WANDERING).convert(mode)
    levels = load(image, tmp_path, name='mask.jpg', save=dict(quality=quality))
    wrong = np.count_nonzero(levels != WANDERING)
    assert wrong <= 0.1 * WANDERING.sum()
    # The same levels in a lossless file are understood as well.
    again = Image.open(tmp_path / 'mask.jpg').convert('L')
    assert len(again.getcolors()) > 8
    np.testing.assert_array_equal(load(again, tmp_path), levels)


def test_a_little_ringing_is_no_label_map(tmp_path):
    levels = np.uint8([0, 255])[EXPECTED]
    levels[0, 0], levels[22, 22] = 1, 254
    loaded = load(Image.fromarray(levels), tmp_path)
    np.testing.assert_array_equal(loaded, EXPECTED)


def test_default_threshold_is_127(tmp_path):
    ramp = np.zeros((48, 64), dtype=np.uint8)
    ramp[20:24] = 255
    ramp[30, :8] = (1, 2, 60, 127, 128, 200, 254, 3)
    levels = load(Image.fromarray(ramp), tmp_path)
    np.testing.assert_array_equal(levels[30, :8], (0, 0, 0, 0, 1, 1, 1, 0))


def test_mask_without_crack(tmp_path):
    empty = np.zeros_like(EXPECTED)
    assert not load(grey(mask=empty), tmp_path).any()
    assert not load(grey(mask=empty), tmp_path, name='mask.jpg').any()


def test_ignore_values(tmp_path):
    labels = EXPECTED.copy()
    labels[40:] = 2
    image = grey(mask=labels, values=(0, 1, 255))
    loaded = load(image, tmp_path, ignore_values=[255])
    expected = EXPECTED.copy()
    expected[40:] = 255
    np.testing.assert_array_equal(loaded, expected)


RNG = np.random.default_rng(0)
THREE = EXPECTED.copy()
THREE[40:] = 2


def labels_and_ignore(count):
    """Stripes of the labels 0..count-1 and, at the right, 255."""
    stripes = np.arange(64) * (count + 1) // 64
    stripes = np.where(stripes == count, 255, stripes).astype(np.uint8)
    return Image.fromarray(np.repeat(stripes[None], 48, axis=0))


AMBIGUOUS = {
    'label map': (grey(mask=THREE, values=(0, 1, 2)), '0, 1, 2'),
    'crack forest labels': (grey(mask=THREE, values=(1, 2, 3)), '1, 2, 3'),
    '0/1 and ignore': (grey(mask=THREE, values=(0, 1, 255)), '0, 1, 255'),
    '0/255 and ignore': (grey(mask=THREE, values=(0, 128, 255)), '128'),
    'one odd label': (grey(values=(0, 128)), '0, 128'),
    'all 255': (grey(mask=EXPECTED * 0, values=(255,)), '255'),
    'all 1': (grey(mask=EXPECTED * 0, values=(1,)), '1'),
    'photograph': (
        Image.fromarray(RNG.integers(0, 256, (48, 64), dtype=np.uint8)),
        '256 values',
    ),
    'bright photograph': (
        Image.fromarray(RNG.integers(90, 250, (48, 64), dtype=np.uint8)),
        '160 values',
    ),
    'colours': (
        Image.fromarray(EXPECTED[..., None] * np.uint8([255, 0, 0])),
        '(255, 0, 0)',
    ),
    'colour palette of three': (
        with_palette([[0, 0, 0], [128, 0, 0], [0, 128, 0]], indices=THREE),
        '0, 1, 2',
    ),
    # As Image.quantize() writes it: the crack is index 0.
    'palette red, black': (
        with_palette([[255, 0, 0], [0, 0, 0]], indices=1 - EXPECTED),
        '(255, 0, 0)',
    ),
    'labels and ignore': (
        labels_and_ignore(7),
        '255 stands alone above 6',
    ),
    'more labels and ignore': (
        labels_and_ignore(11),
        '255 stands alone above 10',
    ),
    'mask in alpha': (
        with_alpha(grey(mask=EXPECTED * 0), EXPECTED * 255),
        'alpha',
    ),
    '16 bit': (Image.fromarray(EXPECTED.astype(np.uint16) * 900), '900'),
    'cmyk': (grey().convert('RGB').convert('CMYK'), 'CMYK'),
}


IGNORED = np.asarray(labels_and_ignore(7)) == 255


@pytest.mark.parametrize('kind', AMBIGUOUS)
def test_ambiguous_masks_are_refused(kind, tmp_path):
    image, shown = AMBIGUOUS[kind]
    name = 'strange.tif' if kind == 'cmyk' else 'strange.png'
    with pytest.raises(ValueError) as caught:
        load(image, tmp_path, name=name)
    assert name in str(caught.value)
    assert shown in str(caught.value)


def test_jpeg_of_a_label_map_is_refused(tmp_path):
    with pytest.raises(ValueError, match='label map'):
        load(
            grey(values=(0, 1)),
            tmp_path,
            name='mask.jpg',
            save=dict(quality=100),
        )


def test_jpeg_of_labels_and_ignore_is_refused(tmp_path):
    labels = np.zeros((48, 64), dtype=np.uint8)
    labels[:, 16:24], labels[32:] = 1, 255  # on the blocks of JPEG: exact
    with pytest.raises(ValueError, match='255 stands alone above 1'):
        load(Image.fromarray(labels), tmp_path, name='mask.jpg')
    levels = load(
        Image.fromarray(labels), tmp_path, name='mask.jpg', threshold=127
    )
    np.testing.assert_array_equal(levels, labels == 255)


@pytest.mark.parametrize(
    ('kind', 'kwargs', 'crack'),
    [
        ('label map', dict(crack_values=[1]), THREE == 1),
        ('label map', dict(crack_values=[1, 2]), THREE > 0),
        ('crack forest labels', dict(crack_values=[2, 4]), THREE == 1),
        ('one odd label', dict(crack_values=[128]), EXPECTED == 1),
        ('one odd label', dict(threshold=100), EXPECTED == 1),
        ('all 255', dict(crack_values=[255]), EXPECTED >= 0),
        ('all 255', dict(threshold=127), EXPECTED >= 0),
        ('0/255 and ignore', dict(threshold=200), THREE == 2),
        ('colours', dict(crack_colors=[(255, 0, 0)]), EXPECTED == 1),
        (
            'palette red, black',
            dict(crack_colors=[(255, 0, 0)]),
            EXPECTED == 1,
        ),
        ('palette red, black', dict(crack_values=[0]), EXPECTED == 1),
        ('labels and ignore', dict(crack_values=[255]), IGNORED == 1),
    ],
)
def test_explicit_arguments_resolve(kind, kwargs, crack, tmp_path):
    loaded = load(AMBIGUOUS[kind][0], tmp_path, **kwargs)
    np.testing.assert_array_equal(loaded, crack.astype(np.uint8))


def test_threshold_refuses_a_mask_it_would_empty(tmp_path):
    with pytest.raises(ValueError, match='threshold=127'):
        load(grey(values=(0, 1)), tmp_path, threshold=127)
    loaded = load(grey(values=(0, 1)), tmp_path, threshold=0)
    np.testing.assert_array_equal(loaded, EXPECTED)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(crack_values=[255]),
        dict(crack_values=[1]),
        dict(threshold=127),
        dict(threshold=0),
    ],
)
def test_one_bit_masks_are_0_and_255_or_0_and_1(kwargs, tmp_path):
    loaded = load(grey().convert('1'), tmp_path, **kwargs)
    np.testing.assert_array_equal(loaded, EXPECTED)


def test_values_refuse_a_mask_they_would_empty(tmp_path):
    with pytest.raises(ValueError, match=r'0 and 1, none .*\[255\]'):
        load(grey(values=(0, 1)), tmp_path, crack_values=[255])
    with pytest.raises(ValueError, match=r'0 and 255, none .*\[1\]'):
        load(grey(), tmp_path, crack_values=[1])
    loaded = load(grey(), tmp_path, crack_values=[1], ignore_values=[255])
    np.testing.assert_array_equal(loaded, EXPECTED * 255)
    # No crack is no mistake, nor is a label map that lacks the class.
    empty = grey(mask=EXPECTED * 0)
    assert not load(empty, tmp_path, crack_values=[255]).any()
    assert not load(grey(values=(0, 1)), tmp_path, crack_values=[2]).any()


def test_ends_of_a_jpeg_take_in_their_neighbours(tmp_path):
    image = grey(mask=WANDERING)
    expected = load(image, tmp_path, name='mask.jpg')
    for values, flip in (([255], 0), ([0], 1)):
        loaded = load(image, tmp_path, name='mask.jpg', crack_values=values)
        np.testing.assert_array_equal(loaded, expected ^ flip)


def test_colours_of_a_jpeg_are_refused(tmp_path):
    with pytest.raises(ValueError, match='mask.jpg is JPEG'):
        load(
            AMBIGUOUS['colours'][0],
            tmp_path,
            name='mask.jpg',
            crack_colors=[(255, 0, 0)],
        )


def test_inverted_mask_is_warned_about(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmseg_crackssm.datasets.transforms.loading.print_log',
        lambda message, **kwargs: logged.append(message),
    )
    image = grey(values=(255, 0))
    load(image, tmp_path)
    assert len(logged) == 1 and 'crack_values=[0]' in logged[0]
    loaded = load(image, tmp_path, crack_values=[0])
    np.testing.assert_array_equal(loaded, EXPECTED)
    assert len(logged) == 1


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(threshold=127, crack_values=[1]), 'one of'),
        (dict(threshold=255), '0..254'),
        (dict(crack_values=[256]), '0..255'),
        (dict(crack_values=[]), 'at least one'),
        (dict(crack_values=[1], ignore_values=[1]), 'both'),
        (dict(crack_colors=[(1, 2)]), 'triples'),
        (dict(crack_colors=[]), 'triples'),
        (dict(crack_colors=[(256, 0, 0)]), '0..255'),
        (dict(crack_colors=[(-1, 0, 0)]), '0..255'),
        (dict(crack_colors=[(1, 2, 3)], ignore_values=[1]), 'combined'),
    ],
)
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        LoadCrackAnnotations(**kwargs)


def test_too_large_a_mask_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(ValueError, match='mask.png is too large .*pieces'):
        load(grey(), tmp_path)


@pytest.mark.parametrize('content', ['text', 'truncated', 'empty'])
def test_corrupt_mask(content, tmp_path):
    noise = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, 'PNG')
    data = {
        'text': b'<html>404</html>',
        'truncated': buffer.getvalue()[:500],
        'empty': b'',
    }[content]
    (tmp_path / 'broken.png').write_bytes(data)
    with pytest.raises(ValueError, match='broken.png cannot be decoded'):
        LoadCrackAnnotations().transform(
            dict(seg_map_path=str(tmp_path / 'broken.png'))
        )


def test_missing_mask(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.png'):
        LoadCrackAnnotations().transform(
            dict(seg_map_path=str(tmp_path / 'absent.png'))
        )


def test_sample_without_mask_passes():
    results = dict(img_path='photo.jpg')
    assert LoadCrackAnnotations().transform(results) == dict(
        img_path='photo.jpg'
    )


def test_file_name_in_windows_1252(tmp_path):
    path = os.path.join(str(tmp_path), os.fsdecode(b'Stra\xdfe.png'))
    try:
        with open(path, 'wb') as file:
            grey(mask=THREE, values=(0, 1, 2)).save(file, 'PNG')
    except OSError:
        pytest.skip('this file system takes UTF-8 names alone')
    with pytest.raises(ValueError) as caught:
        LoadCrackAnnotations().transform(dict(seg_map_path=path))
    # The message can be printed and logged.
    assert b'Stra' in str(caught.value).encode('utf-8')
    loaded = LoadCrackAnnotations(crack_values=[1]).transform(
        dict(seg_map_path=path)
    )
    np.testing.assert_array_equal(loaded['gt_seg_map'], THREE == 1)
