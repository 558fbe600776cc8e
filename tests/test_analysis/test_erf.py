import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmseg_crackssm.analysis import erf
from mmseg_crackssm.apis import init_model


def ones_network(depth):
    layers = [nn.Conv2d(3, 2, 3, padding=1, bias=False)]
    layers += [
        nn.Conv2d(2, 2, 3, padding=1, bias=False) for _ in range(depth - 1)
    ]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize('depth', [1, 2, 3])
def test_plain_convolutions(depth):
    """Their receptive field is known: a window of 2 * depth + 1, in which a
    pixel counts by the number of paths from it to the centre."""
    images = [torch.rand(2, 3, 21, 17, dtype=torch.float64) for _ in range(3)]
    found = erf.accumulate_contributions(ones_network(depth), images)
    line = np.ones(1)
    for _ in range(depth):
        line = np.convolve(line, np.ones(3))
    # 2 channels lead on at each layer; 3 of the image, 6 images.
    expected = np.zeros((21, 17))
    window = np.outer(line, line) * 2**depth * 3 * 6
    expected[10 - depth : 11 + depth, 8 - depth : 9 + depth] = window
    np.testing.assert_allclose(found, expected)


def test_negative_contributions_are_dropped():
    network = ones_network(1)
    with torch.no_grad():
        network[0].weight[:, :, 0] = -1
    image = torch.rand(1, 3, 9, 9, dtype=torch.float64)
    found = erf.accumulate_contributions(network, [image])
    assert found[3].sum() == 0 and (found[4:6, 3:6] == 6).all()


def test_no_images():
    with pytest.raises(ValueError, match='at least one batch'):
        erf.accumulate_contributions(ones_network(1), [])


def test_map_is_the_papers():
    drawn = erf.contribution_map(np.array([[0.0, 9.0], [99.0, 0.0]]))
    np.testing.assert_allclose(drawn, [[0, 0.5], [1, 0]])
    assert not erf.contribution_map(np.zeros((2, 2))).any()


def test_area_shares():
    energy = np.zeros((21, 21))
    energy[8:13, 8:13] = 1
    shares = erf.area_shares(energy, (0.04, 0.3, 0.99))
    assert shares == {
        0.04: pytest.approx(1 / 441),
        0.3: pytest.approx(9 / 441),
        0.99: pytest.approx(25 / 441),
    }
    even = erf.area_shares(np.ones((40, 20)), (0.5, 1.0))
    assert even[0.5] == pytest.approx(0.5, abs=0.06) and even[1.0] == 1
    assert erf.area_shares(np.zeros((4, 4)), (0.5,)) == {0.5: 1.0}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ('a.png', 'b.jpg'):
        image = rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), image)
    (folder / 'notes.txt').write_text('no image')
    return folder


CONFIG = """
_base_ = '{root}/configs/_base_/models/crackseu.py'
default_scope = 'mmseg'
model = dict(
    backbone=dict(channels=(32, 32, 32, 32, 64), blocks='CrackMambaBlock'),
    neck=dict(in_channels=(32, 32, 32, 32, 64)),
    decode_head=dict(in_channels=32),
    auxiliary_head=dict(in_channels=32),
)
"""


@pytest.fixture
def config(tmp_path, repo_root):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=repo_root.as_posix()))
    return path


def test_before_and_after(config, images, tmp_path, capsys):
    model = init_model(config)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(1.5)
    checkpoint = tmp_path / 'trained.pth'
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    out = tmp_path / 'out'
    arguments = [str(config), str(checkpoint), '--images', str(images)]
    arguments += ['--stage', '2', '5', 'neck.fusion1', '--out', str(out)]
    assert erf.main([*arguments, '--shape', '64', '96']) == 0
    printed = capsys.readouterr().out
    assert '2 images' in printed and 'stage 5, after' in printed
    assert cv2.imread(str(out / 'erf.png')) is not None
    report = json.loads((out / 'erf.json').read_text())
    for stage in ('2', '5', 'neck.fusion1'):
        before, after = (
            np.load(out / f'stage-{stage}_{name}.npy')
            for name in ('before', 'after')
        )
        assert before.shape == after.shape == (64, 96)
        assert before.max() == after.max() == 1 and before.min() >= 0
        assert not np.array_equal(before, after)
        areas = report['after'][stage]
        assert list(areas) == ['20%', '50%', '99%']
        assert 0 < areas['20%'] <= areas['50%'] <= areas['99%'] <= 1


def test_a_scan_sees_the_whole_image(config, images, tmp_path):
    out = tmp_path / 'out'
    arguments = [str(config), '--images', str(images), '--out', str(out)]
    arguments += ['--stage', '1', '2', '--max-images', '1']
    assert erf.main([*arguments, '--shape', '64', '64']) == 0
    convolutions, scan = (
        np.load(out / f'stage-{k}_before.npy') > 0 for k in (1, 2)
    )
    # Two convolutions and the pool between them.
    rows, columns = np.nonzero(convolutions)
    assert np.ptp(rows) < 10 and np.ptp(columns) < 10
    assert scan.any(axis=1).all() and scan.any(axis=0).all()
    assert not (out / 'stage-1_after.npy').exists()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (['--stage', '6'], 'has outputs 1 to 5'),
        (['--stage', 'backbone.stage'], 'backbone.stages.0'),
        (['--stage', 'backbone'], 'returns one map'),
        (['--stage', 'auxiliary_head'], 'that inference calls'),
        (['--images', 'nowhere'], "'nowhere' does not exist"),
        (['--shape', '0', '4'], 'at least 1'),
        (['--max-images', '-1'], 'at least 1'),
    ],
)
def test_bad_input(config, images, tmp_path, capsys, change, message):
    arguments = [str(config), '--stage', '1', '--images', str(images)]
    arguments += ['--out', str(tmp_path / 'out'), '--shape', '32', '32']
    assert erf.main([*arguments, *change]) == 1
    assert message in capsys.readouterr().err


def test_folder_without_images(config, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    arguments = [str(config), '--stage', '1']
    arguments += ['--images', str(tmp_path / 'empty')]
    assert erf.main(arguments) == 1
    assert 'holds no image' in capsys.readouterr().err
