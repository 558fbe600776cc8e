import runpy
import sys
from types import SimpleNamespace

import pytest
import torch

from mmseg_crackssm.analysis import bench_sample
from mmseg_crackssm.ops import adaptive_sample

SMALL = ['--size', '32', '--rounds', '1']


@pytest.fixture
def without_others(monkeypatch):
    monkeypatch.setattr(bench_sample, '_import', lambda name: None)


def test_ratios(without_others, capsys):
    assert bench_sample.main(SMALL) == 0
    out = capsys.readouterr().out
    assert out.count('adaptive_sample: ') == 8
    assert out.count('F.grid_sample: ') == out.count('memory: ') == 8
    for stage in ('(1, 80, 8, 8)', '(1, 512, 1, 1)'):
        for way in ('forward', 'with backward'):
            assert f'{stage}, {way}:' in out
    assert 'ratio: 1.00' in out and 'threads: ' in out


def deform_conv2d(x, offset, weight, *sizes):
    """What torchvision's and mmcv's do with a 1x1 kernel per channel.

    Their pairs are (dy, dx).
    """
    channels = x.shape[1]
    assert weight.shape == (channels, 1, 1, 1)
    assert sizes in ((), (1, 0, 1, channels, offset.shape[1] // 2))
    offset = offset.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
    return adaptive_sample(x, offset) * weight[:, 0]


@pytest.mark.parametrize('name', ['torchvision', 'mmcv'])
def test_deformable_convolutions_take_part(name, monkeypatch, capsys):
    module = SimpleNamespace(deform_conv2d=deform_conv2d)
    monkeypatch.setattr(
        bench_sample,
        '_import',
        lambda found: module if found == f'{name}.ops' else None,
    )
    assert bench_sample.main(SMALL) == 0
    assert capsys.readouterr().out.count(f'{name} deform_conv2d: ') == 8


def test_module_that_does_not_load(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'of_another_torch.py').write_text('raise RuntimeError')
    for name in ('of_another_torch', 'not_there', 'not_there.ops'):
        assert bench_sample._import(name) is None
    assert bench_sample._import('torch.nn') is torch.nn


def test_tells_of_a_difference(without_others, monkeypatch, capsys):
    monkeypatch.setattr(
        bench_sample,
        'sample_by_rows',
        lambda x, offset: adaptive_sample(x, offset.flip(1)),
    )
    assert bench_sample.main(SMALL) == 1
    assert 'differ in maps' in capsys.readouterr().err


def test_offsets_are_no_whole_pixels():
    for _, offset in bench_sample.make_stages(96, 2, torch.device('cpu')):
        distance = (offset - offset.round()).abs()
        assert distance.min() > 0.009 and offset.abs().max() > 3


def test_script(repo_root, monkeypatch, capsys):
    tool = repo_root / 'tools' / 'analysis' / 'bench_sample.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), '--rounds', '0'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 1
    assert '--rounds' in capsys.readouterr().err
