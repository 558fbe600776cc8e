import json
import os
import runpy
import subprocess
import sys

import pytest

CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmseg_crackssm', 'noisy_module'])
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor'),
    backbone=dict(
        type='UNet',
        in_channels=3,
        base_channels=4,
        num_stages=2,
        strides=(1, 1),
        enc_num_convs=(1, 1),
        dec_num_convs=(1,),
        downsamples=(True,),
        enc_dilations=(1, 1),
        dec_dilations=(1,),
        norm_cfg=norm_cfg,
        upsample_cfg=dict(type='InterpConv')),
    decode_head=dict(
        type='FCNHead',
        in_channels=4,
        in_index=1,
        channels=6,
        num_convs=1,
        concat_input=False,
        num_classes=2,
        out_channels=1,
        norm_cfg=norm_cfg),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
"""
NOISE = """
from mmengine.logging import print_log
print('printed noise')
print_log('logged noise', logger='current')
"""


@pytest.fixture
def tool(repo_root):
    return repo_root / 'tools' / 'analysis' / 'get_flops.py'


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'noisy_module.py').write_text(NOISE)
    (tmp_path / 'config.py').write_text(CONFIG)
    return tmp_path / 'config.py'


@pytest.mark.slow
def test_json_is_alone_on_stdout(tool, config, repo_root, tmp_path):
    paths = [str(repo_root), str(tmp_path), os.environ.get('PYTHONPATH', '')]
    done = subprocess.run(
        [sys.executable, str(tool), str(config), '--json']
        + ['--shape', '16', '32']
        + ['--cfg-options', 'model.decode_head.channels=8'],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert 'printed noise' in done.stderr
    assert 'logged noise' in done.stderr
    assert report['shape'] == [16, 32]
    assert report['scan_flops'] == 0
    by_kind = report['by_kind']
    assert report['macs'] == by_kind['convolution']['macs'] > 0
    head = report['by_module']['decode_head']
    assert head['params'] == 9 * 4 * 8 + 2 * 8 + (8 + 1)
    assert head['macs'] == 16 * 32 * (9 * 4 * 8 + 8)
    backbone = report['by_module']['backbone']
    assert report['params'] == head['params'] + backbone['params']


def run_here(tool, monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', [str(tool), *map(str, args)])
    runpy.run_path(str(tool), run_name='__main__')


def test_text_and_square_shape(tool, config, monkeypatch, capsys):
    monkeypatch.syspath_prepend(config.parent)
    run_here(tool, monkeypatch, config, '--shape', '16')
    out = capsys.readouterr().out
    assert '16 x 16' in out
    assert 'convolution' in out
    assert 'scan FLOPs' in out


@pytest.mark.parametrize('shape', [('0', '16'), ('1', '2', '3')])
def test_bad_shape_is_a_usage_error(tool, monkeypatch, capsys, shape):
    with pytest.raises(SystemExit):
        run_here(tool, monkeypatch, 'config.py', '--shape', *shape)
    assert '--shape: expected H W' in capsys.readouterr().err
