import json
import os
import runpy
import shutil
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_crackssm.apis.check_dataset import main
from mmseg_crackssm.datasets.converters import cfd


def draw(root, split, name, seed, size=(64, 96)):
    rng = np.random.default_rng(seed)
    low = rng.integers(60, 190, (8, 12, 3), dtype=np.uint8)
    image = cv2.resize(low, size[::-1], interpolation=cv2.INTER_CUBIC)
    mask = np.zeros(size, dtype=np.uint8)
    mask[20:24] = 255
    for kind, array in (('images', image), ('masks', mask)):
        path = root / split / kind / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def data(tmp_path):
    root = tmp_path / 'data'
    for index, split in enumerate(('train', 'val', 'test')):
        for name in range(3):
            draw(root, split, name, seed=10 * index + name)
    return root


def run(data, tmp_path, *args):
    path = tmp_path / 'out' / 'report.json'
    code = main(
        [str(data), '--workers', '1', '--json', str(path), *map(str, args)]
    )
    return code, json.loads(path.read_text())


def kinds(report):
    return sorted(finding['kind'] for finding in report['findings'])


def test_sound_folder(data, tmp_path, capsys):
    sheet = tmp_path / 'sheet.png'
    code, report = run(data, tmp_path, '--sheet', sheet)
    assert code == 0 and report['sound'] and report['findings'] == []
    assert list(report['splits']) == ['train', 'val', 'test']
    train = report['splits']['train']
    assert train['images'] == 3 and train['sizes'] == {'96x64': 3}
    assert train['mask_values'] == {'0/255': 3}
    assert train['crack_share'] == pytest.approx(4 / 64)
    captured = capsys.readouterr()
    assert 'Nothing stands against' in captured.out
    assert '9/9' in captured.err
    assert cv2.imread(str(sheet)).shape[0] > 300


def truncate(data):
    path = data / 'train/images/1.png'
    path.write_bytes(path.read_bytes()[:60])


def truncate_mask(data):
    path = data / 'train/masks/1.png'
    path.write_bytes(path.read_bytes()[:60])


def lose_mask(data):
    (data / 'train/masks/1.png').unlink()


def shrink_mask(data):
    mask = np.zeros((32, 48), dtype=np.uint8)
    mask[9] = 255
    Image.fromarray(mask).save(data / 'train/masks/1.png')


def label_map(data):
    mask = np.zeros((64, 96), dtype=np.uint8)
    mask[5], mask[9], mask[20] = 3, 7, 90
    Image.fromarray(mask).save(data / 'train/masks/1.png')


def empty_masks(data):
    for path in (data / 'val/masks').iterdir():
        Image.fromarray(np.zeros((64, 96), dtype=np.uint8)).save(path)


def copy_across(data):
    image = (data / 'train/images/1.png').read_bytes()
    (data / 'test/images/2.png').write_bytes(image)


def compress_across(data):
    with Image.open(data / 'train/images/1.png') as image:
        image.resize((72, 48)).resize((96, 64)).save(
            data / 'test/images/2.jpg', quality=70
        )
    (data / 'test/images/2.png').unlink()


def turn(data):
    path = data / 'train/images/1.png'
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(path) as image:
        image.save(path.with_suffix('.jpg'), exif=exif)
    path.unlink()


def invert(data):
    path = data / 'train/masks/1.png'
    mask = 255 - np.asarray(Image.open(path))
    Image.fromarray(mask).save(path)


def invert_all(data):
    for path in (data / 'train/masks').iterdir():
        mask = 255 - np.asarray(Image.open(path))
        Image.fromarray(mask).save(path)


@pytest.mark.parametrize(
    ('spoil', 'found', 'sound'),
    [
        (truncate, ['unreadable'], False),
        (truncate_mask, ['unreadable'], False),
        (lose_mask, ['unpaired'], False),
        (shrink_mask, ['size'], False),
        (label_map, ['values'], False),
        (empty_masks, ['no crack'], False),
        (copy_across, ['duplicate'], False),
        (compress_across, ['near-duplicate'], True),
        (turn, ['orientation', 'orientation'], True),
        (invert, ['inverted'], True),
        (invert_all, ['inverted'] * 3 + ['inverted split'], False),
    ],
)
def test_findings(data, tmp_path, capsys, spoil, found, sound):
    spoil(data)
    code, report = run(data, tmp_path, '--sheet', tmp_path / 'sheet.png')
    assert kinds(report) == found
    assert report['sound'] == sound and code == (0 if sound else 1)
    out = capsys.readouterr().out
    assert ('ERROR' in out) == (not sound)
    assert report['findings'][0]['message'] in out
    assert (tmp_path / 'sheet.png').is_file()


@pytest.fixture
def flat(data):
    """Nine images in one folder, without split files."""
    for kind in ('images', 'masks'):
        (data / kind).mkdir()
        for split in ('train', 'val', 'test'):
            for path in (data / split / kind).iterdir():
                path.rename(data / kind / f'{split}{path.name}')
    for split in ('train', 'val', 'test'):
        shutil.rmtree(data / split)
    return data


def name(data, split, *names):
    (data / f'{split}.txt').write_text('\n'.join(names))


def test_image_in_two_split_files(flat, tmp_path):
    name(flat, 'train', 'train0', 'train1', 'val0')
    name(flat, 'val', 'val0', 'val1')
    code, report = run(flat, tmp_path)
    assert kinds(report) == ['duplicate'] and code == 1
    assert report['splits']['val']['images'] == 2


def test_val_that_serves_as_test_is_no_duplicate(flat, tmp_path, capsys):
    name(flat, 'train', 'train0', 'train1')
    name(flat, 'val', 'val0', 'val1')
    code, report = run(flat, tmp_path)
    assert report['findings'] == [] and code == 0
    assert list(report['splits']) == ['train', 'val']
    config = ['crackssm_folder-448', '--data-root', str(flat)]
    assert main(config) == 0
    options = ['crackssm_folder-448', '--cfg-options', f'data_root={flat}']
    assert main(options) == 0


def test_a_split_that_is_the_training_set(flat, tmp_path):
    for split in ('train', 'val'):
        name(flat, split, 'train0', 'train1')
    assert kinds(run(flat, tmp_path)[1]) == ['duplicate'] * 2


def test_splits_that_cannot_be_used(flat, tmp_path, capsys):
    """Whatever keeps a run from starting is an error here."""
    code, report = run(flat, tmp_path)
    assert kinds(report) == ['unusable'] and code == 1
    assert '9 images are too few' in capsys.readouterr().out
    name(flat, 'train', *(path.stem for path in (flat / 'masks').iterdir()))
    assert kinds(run(flat, tmp_path)[1]) == ['unusable'] * 2
    name(flat, 'train', 'train0', 'nobody')
    assert 'unusable' in kinds(run(flat, tmp_path)[1])


def test_options_of_a_folder(data, tmp_path, capsys):
    for split in ('train', 'val', 'test'):
        for path in (data / split / 'masks').iterdir():
            mask = 255 - np.asarray(Image.open(path))
            Image.fromarray(mask).save(path.with_name(f'{path.stem}_m.PNG'))
            path.unlink()
    options = ('--mask-suffix', '_m.png', '--img-suffix', '.png')
    code, report = run(data, tmp_path, *options, '--crack-values', '0')
    assert code == 0 and report['findings'] == []
    assert report['splits']['val']['crack_share'] == pytest.approx(4 / 64)
    assert run(data, tmp_path, *options)[0] == 1
    assert '--crack-values 0' in capsys.readouterr().out


def test_no_log_among_the_progress(data, tmp_path, capfd):
    invert_all(data)
    run(data, tmp_path, '--sheet', tmp_path / 'sheet.png')
    captured = capfd.readouterr()
    assert 'silences this' not in captured.out + captured.err


def test_file_names_in_another_encoding(flat, tmp_path, capsys):
    root = flat.rename(tmp_path / b'stra\xdfe'.decode('utf-8', 'replace'))
    root = root.rename(tmp_path / os.fsdecode(b'stra\xdfe'))
    name(root, 'train', 'train0', 'train1')
    sheet = root / os.fsdecode(b'bl\xe4tter.png')
    code, _ = run(root, tmp_path, '--sheet', sheet)
    assert code == 0 and sheet.stat().st_size > 1000
    assert 'Worst cases' in capsys.readouterr().out


def test_real_images(crack_data_dir, tmp_path, capsys):
    """The findings on CFD: nothing wrong, and no image twice."""
    root = tmp_path / 'CFD'
    cfd.convert(crack_data_dir / 'cfd', root)
    args = ['crackssm_cfd-320', '--data-root', str(root), '--json']
    path = tmp_path / 'report.json'
    assert main([*args, str(path)]) == 0
    report = json.loads(path.read_text())
    assert report['findings'] == []
    train, val = report['splits']['train'], report['splits']['val']
    assert (train['images'], val['images']) == (40, 39)
    assert train['sizes'] == {'480x320': 40}
    assert val['mask_values'] == {'0/255': 39}
    assert train['crack_share'] == pytest.approx(0.0155, abs=1e-4)
    assert val['crack_share_max'] == pytest.approx(0.0622, abs=1e-4)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('nowhere',), 'no folder nowhere; and config'),
        (('crackssm_synthetic-256',), 'no data set of files'),
        (('crackssm_tut-448',), 'Download the TUT dataset'),
        (('{}', '--workers', '0'), '--workers'),
        (('{}',), 'holds no folder of images'),
        (('{}', '--sheet', 'x.abc'), 'suffix of an image format'),
        (('{}', '--json', '{}'), 'is a folder, expected the name of a file'),
        (('{}', '--data-root', '{}'), '--data-root is for configs'),
        (('crackssm_tut-448', '--img-suffix', '.x'), 'is for folders'),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    assert main([arg.format(tmp_path) for arg in args]) == 1
    assert message in capsys.readouterr().err


def test_script(repo_root, data, monkeypatch):
    tool = repo_root / 'tools' / 'check_dataset.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), str(data), '--workers', '2'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 0
