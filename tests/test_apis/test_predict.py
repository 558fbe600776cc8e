import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_crackssm.apis import predict
from mmseg_crackssm.apis.predict import find_images, predict_files


def _write(path: Path, shape=(8, 6), value=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*shape, 3), value, np.uint8)
    path.write_bytes(cv2.imencode('.png', image)[1].tobytes())


@pytest.fixture
def batches(monkeypatch) -> list[int]:
    """A stand-in for the network: bright is crack. Gives batch sizes."""
    sizes = []

    def predict_images(model, images, *, threshold, tile):
        assert len({image.shape for image in images}) == 1
        sizes.append(len(images))
        maps = [image[..., 0].astype(np.float32) / 255 for image in images]
        return [
            dict(mask=item > (threshold or 0.5), probability=item)
            for item in maps
        ]

    monkeypatch.setattr(predict, 'predict_images', predict_images)
    return sizes


def test_names_are_kept_and_none_overwrites_another(tmp_path):
    source = tmp_path / 'in'
    files = [
        'a.png',
        'b.JPG',
        'b.png',
        'sub/a.tif',
        'sub/c.d.png',
        'b.jpg.png',
    ]
    for name in [*files, '.a.png', 'notes.txt']:
        _write(source / name)
    names = find_images(source, tmp_path / 'out')
    found = {str(k.relative_to(source)): v for k, v in names.items()}
    assert set(found) == set(files)
    assert found['a.png'] == 'a.png'
    assert found['b.JPG'] == 'b.JPG.png'
    assert found['b.png'] == 'b.png.png'
    assert found['sub/a.tif'] == 'sub/a.png'
    assert found['sub/c.d.png'] == 'sub/c.d.png'
    assert len(set(found.values())) == len(files)


def test_kept_suffix_never_hits_another_name(tmp_path):
    for name in ('b.jpg', 'b.png', 'b.jpg.png'):
        _write(tmp_path / name)
    names = find_images(tmp_path, tmp_path / 'out').values()
    assert len(set(names)) == 3


def test_own_outputs_are_not_predicted_again(tmp_path, batches):
    _write(tmp_path / 'a.png')
    for _ in range(2):
        summary = predict_files(None, tmp_path, tmp_path / 'out')
        assert summary.done == [tmp_path / 'a.png']


@pytest.mark.parametrize('out', ['.', 'photos'])
def test_results_beside_or_above_the_images(out, tmp_path, batches):
    source, out = tmp_path / 'photos', tmp_path / out
    _write(source / 'a.png')
    for _ in range(2):
        assert predict_files(None, source, out).done == [source / 'a.png']
    assert (out / 'mask' / 'a.png').is_file()


def test_outputs(tmp_path, batches):
    source, out = tmp_path / 'in', tmp_path / 'out'
    _write(source / 'sub/a.png', value=200)
    predict_files(None, source, out)
    mask = cv2.imread(str(out / 'mask/sub/a.png'), cv2.IMREAD_UNCHANGED)
    assert mask.dtype == np.uint8 and mask.shape == (8, 6)
    assert (mask == 255).all()
    probability = cv2.imread(
        str(out / 'probability/sub/a.png'), cv2.IMREAD_UNCHANGED
    )
    assert probability.dtype == np.uint16
    assert (probability == round(200 / 255 * 65535)).all()
    overlay = cv2.imread(str(out / 'overlay/sub/a.png'))
    assert overlay.shape == (8, 6, 3) and overlay[0, 0, 2] > overlay[0, 0, 0]
    predict_files(None, source, out, threshold=0.9)
    mask = cv2.imread(str(out / 'mask/sub/a.png'), cv2.IMREAD_UNCHANGED)
    assert (mask == 0).all()


def test_unreadable_files_are_skipped_and_listed(tmp_path, batches):
    _write(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes(b'broken')
    os.symlink(tmp_path / 'nowhere', tmp_path / 'c.png')
    _write(tmp_path / 'd.png')
    summary = predict_files(None, tmp_path, tmp_path / 'out')
    assert summary.done == [tmp_path / 'a.png', tmp_path / 'd.png']
    assert set(summary.skipped) == {tmp_path / 'b.png', tmp_path / 'c.png'}
    assert all('.png' in why for why in summary.skipped.values())


def test_batches_hold_neighbours_of_one_size(tmp_path, batches):
    for i, shape in enumerate([(4, 4)] * 5 + [(4, 5)] + [(4, 4)] * 2):
        _write(tmp_path / f'{i}.png', shape)
    predict_files(None, tmp_path, tmp_path / 'out', batch=3, progress=True)
    assert batches == [3, 2, 1, 2]


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('--batch', '0'),
        ('--tile', '0'),
        ('--threshold', '127'),
        ('--threshold', 'nan'),
        ('--out', 'a.png'),
        ('--out', 'a.png/deeper'),
        ('--out', 'taken'),
    ],
)
def test_bad_arguments_are_named_before_the_model_is_built(
    option, value, tmp_path, monkeypatch, capsys
):
    _write(tmp_path / 'a.png')
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken/overlay').touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(predict, 'init_model', lambda *a, **k: pytest.fail())
    arguments = ['cfg.py', 'x.pth', 'a.png', '--out', 'out', option, value]
    assert predict.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith('Error: ') and error.count('\n') == 1
    assert option.strip('-') in error and value.split('/')[0] in error
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'error',
    [
        MemoryError(),
        RuntimeError('CUDA out of memory. Tried to allocate 9 GiB'),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_what_memory_does_not_suffice_for_is_tiled_or_skipped(
    error, tmp_path, monkeypatch
):
    calls = []

    def predict_images(model, images, *, threshold, tile):
        calls.append((len(images), images[0].shape[1], tile))
        if len(images) > 2 or images[0].shape[1] > 9 and tile is None:
            raise error
        if images[0].shape[1] > 29:
            raise error
        empty = np.zeros(images[0].shape[:2], np.float32)
        return [dict(mask=empty > 0, probability=empty)] * len(images)

    monkeypatch.setattr(predict, 'predict_images', predict_images)
    monkeypatch.setattr(predict, 'FALLBACK_TILE', 16)
    for i, width in enumerate([8, 8, 8, 20, 30, 12, 8]):
        _write(tmp_path / f'{i}.png', (8, width))
    summary = predict_files(None, tmp_path, tmp_path / 'out', batch=3)
    assert [path.name for path in summary.done] == [
        f'{i}.png' for i in (0, 1, 2, 3, 6)
    ]
    assert [path.name for path in summary.tiled] == ['3.png']
    assert {p.name for p in summary.skipped} == {'4.png', '5.png'}
    assert '30 x 8' in summary.skipped[tmp_path / '4.png']
    assert calls[:5] == [(3, 8, None), *[(1, 8, None)] * 3, (1, 20, None)]
    assert calls[5] == (1, 20, 16)


def test_nan_is_no_road_without_cracks(tmp_path, monkeypatch):
    def predict_images(model, images, **kwargs):
        maps = [image[..., 0].astype(np.float32) / 255 for image in images]
        maps = [np.where(item == 1, np.nan, item) for item in maps]
        return [dict(mask=x > 0.5, probability=x) for x in maps]

    monkeypatch.setattr(predict, 'predict_images', predict_images)
    for name, value in (('a', 0), ('b', 255), ('c', 200)):
        _write(tmp_path / f'{name}.png', value=value)
    summary = predict_files(None, tmp_path, tmp_path / 'out', batch=3)
    assert [path.name for path in summary.done] == ['a.png', 'c.png']
    (why,) = summary.skipped.values()
    assert 'b.png: the network gives nan' in why
    assert {p.name for p in (tmp_path / 'out').rglob('*.png')} == {
        'a.png',
        'c.png',
    }


def test_other_errors_of_the_network_are_not_hidden(tmp_path, monkeypatch):
    def predict_images(model, images, **kwargs):
        raise RuntimeError('size mismatch')

    monkeypatch.setattr(predict, 'predict_images', predict_images)
    _write(tmp_path / 'a.png')
    with pytest.raises(RuntimeError, match='size mismatch'):
        predict_files(None, tmp_path, tmp_path / 'out')


def test_nothing_to_predict(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        find_images(tmp_path / 'none', tmp_path)
    with pytest.raises(FileNotFoundError, match='no image'):
        find_images(tmp_path, tmp_path / 'out')
