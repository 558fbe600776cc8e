import subprocess
import sys

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image
from scipy.io import loadmat, savemat

from mmseg_crackssm.datasets import CrackForestDataset, LoadCrackAnnotations
from mmseg_crackssm.datasets.converters import cfd


def labels():
    array = np.ones((32, 48), dtype=np.uint8)
    array[4:8] = 2
    array[12:20] = 3
    array[24:26] = 4
    return array


def add(src, name, array=None, size=(48, 32)):
    (src / 'image').mkdir(parents=True, exist_ok=True)
    (src / 'groundTruth').mkdir(exist_ok=True)
    Image.new('RGB', size, (110, 110, 110)).save(src / f'image/{name}.jpg')
    truth = np.zeros(
        (1, 1), dtype=[('Segmentation', object), ('Boundaries', object)]
    )
    truth[0, 0]['Segmentation'] = labels() if array is None else array
    truth[0, 0]['Boundaries'] = 0
    savemat(src / f'groundTruth/{name}.mat', {'groundTruth': truth})


@pytest.fixture
def release(tmp_path):
    src = tmp_path / 'release'
    for name in ('001', '002', '003', '004'):
        add(src, name)
    return src


def test_enclosed_areas_are_no_crack():
    mask = cfd.labels_to_mask(labels())
    assert (mask[4:8] == 255).all() and (mask[24:26] == 255).all()
    assert mask.sum() == 255 * 6 * 48


@pytest.mark.parametrize(
    ('faint', 'value'), [('crack', 255), ('background', 0), ('ignore', 128)]
)
def test_faint_cracks(faint, value):
    mask = cfd.labels_to_mask(labels(), faint=faint)
    assert (mask[24:26] == value).all() and (mask[4:8] == 255).all()


def test_writes_images_masks_and_splits(release, tmp_path):
    dst = tmp_path / 'CFD'
    report = cfd.convert(release, dst)
    assert report.splits == dict(
        train=['001', '004'], val=['002'], test=['003']
    )
    assert not report.skipped and not report.broken
    assert (dst / 'splits/train.txt').read_text() == '001\n004\n'
    original = (release / 'image/001.jpg').read_bytes()
    assert (dst / 'images/001.jpg').read_bytes() == original
    dataset = CrackForestDataset(
        ann_file='splits/val.txt',
        data_root=str(dst),
        pipeline=[
            LoadImageFromFile(),
            LoadCrackAnnotations(),
        ],
    )
    np.testing.assert_array_equal(
        dataset[0]['gt_seg_map'], np.isin(labels(), (2, 4))
    )
    # A second run gives the same.
    assert cfd.convert(release, dst) == report


def test_broken_and_lone_files_are_reported(release, tmp_path):
    (release / 'groundTruth/001.mat').write_bytes(b'no mat file')
    (release / 'image/002.jpg').write_bytes(b'no jpeg')
    add(release, '005', size=(40, 32))
    add(release, '006', array=labels() + 3)
    add(release, '007')
    (release / 'image/007.jpg').unlink()
    add(release, '008')
    (release / 'groundTruth/008.mat').unlink()
    add(release, 'extra')
    report = cfd.convert(release, tmp_path / 'CFD')
    assert report.splits == dict(train=['004'], val=[], test=['003'])
    assert set(report.skipped) == {'007', '008', 'extra'}
    assert report.skipped['007'] == 'no image'
    assert set(report.broken) == {'001', '002', '005', '006'}
    assert '001.mat' in report.broken['001']
    assert '002.jpg' in report.broken['002']
    assert '40 x 32' in report.broken['005']
    assert '5, 6, 7' in report.broken['006']


def test_wrong_folders(release, tmp_path):
    with pytest.raises(FileNotFoundError, match='CrackForest'):
        cfd.convert(tmp_path / 'absent', tmp_path / 'CFD')
    with pytest.raises(ValueError, match='release itself'):
        cfd.convert(release, release)
    with pytest.raises(ValueError, match='faint'):
        cfd.convert(release, tmp_path / 'CFD', faint='keep')
    for path in (release / 'image').iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match='no pair'):
        cfd.convert(release, tmp_path / 'CFD')


def test_command(release, tmp_path, capsys):
    assert cfd.main([str(release), str(tmp_path / 'CFD')]) == 0
    assert '2 train, 1 val, 1 test' in capsys.readouterr().out
    (release / 'image/002.jpg').write_bytes(b'no jpeg')
    assert cfd.main([str(release), str(tmp_path / 'CFD')]) == 1
    assert 'broken 002' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('src', 'dst', 'match'),
    [
        ('absent', 'CFD', 'CrackForest'),
        ('release', 'release', 'release itself'),
        ('release', 'file', 'is a file'),
        ('release', 'taken', 'is a file'),
    ],
)
def test_errors_of_the_command_are_one_line(
    src, dst, match, release, tmp_path, capsys
):
    (tmp_path / 'file').touch()
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken/masks').touch()
    assert cfd.main([str(tmp_path / src), str(tmp_path / dst)]) == 1
    error = capsys.readouterr().err
    assert error.startswith('Error: ') and error.count('\n') == 1
    assert match in error


@pytest.mark.slow
@pytest.mark.parametrize('way', ['module', 'tool'])
def test_command_starts(way, release, tmp_path, repo_root):
    command = ['-m', 'mmseg_crackssm.datasets.converters.cfd']
    if way == 'tool':
        command = [str(repo_root / 'tools/dataset_converters/cfd.py')]
    done = subprocess.run(
        [sys.executable, *command, str(release), str(tmp_path / 'CFD')],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '2 train, 1 val, 1 test' in done.stdout
    assert 'RuntimeWarning' not in done.stderr


def test_real_images(crack_data_dir, tmp_path):
    src = crack_data_dir / 'cfd'
    report = cfd.convert(src, tmp_path)
    counts = {split: len(names) for split, names in report.splits.items()}
    assert counts == dict(train=40, val=39, test=0)
    assert not report.skipped and not report.broken
    shares = []
    for name in report.splits['train'] + report.splits['val']:
        with Image.open(tmp_path / f'masks/{name}.png') as opened:
            mask = np.asarray(opened)
        assert mask.shape == (320, 480) and set(np.unique(mask)) == {0, 255}
        shares.append((mask == 255).mean())
    # The figures of the data's README, in per cent.
    assert np.mean(shares) == pytest.approx(0.016, abs=0.0005)
    assert min(shares) == pytest.approx(0.0035, abs=5e-5)
    assert max(shares) == pytest.approx(0.063, abs=5e-4)
    # 097 is a third enclosed area, which is no crack.
    truth = loadmat(str(src / 'groundTruth/097.mat'))['groundTruth'][0, 0]
    with Image.open(tmp_path / 'masks/097.png') as opened:
        mask = np.asarray(opened)
    assert (truth['Segmentation'] == 3).mean() > 0.2
    assert not mask[truth['Segmentation'] == 3].any()
