import json
import runpy
import sys

import pytest
import torch

from mmseg_crackssm.analysis import benchmark, network_calls
from mmseg_crackssm.analysis.benchmark import fit_exponents, main

CONFIG = """
default_scope = 'mmseg'
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[127.5], std=[1.0]),
    backbone=dict(
        type='UNet',
        in_channels=1,
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
        channels=WIDTH,
        num_convs=1,
        concat_input=False,
        num_classes=2,
        norm_cfg=norm_cfg),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
"""


@pytest.fixture
def configs(tmp_path):
    paths = []
    for width in (6, 8):
        path = tmp_path / f'width_{width}.py'
        path.write_text(CONFIG.replace('WIDTH', str(width)))
        paths.append(str(path))
    return paths


def run_json(capsys, *args):
    assert main([*args, '--threads', '1', '--rounds', '2', '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_json_of_inference(configs, capsys):
    report = run_json(capsys, *configs, '--shape', '16', '32', '--batch', '3')
    assert set(report) == {'machine', 'amp', 'rows', 'exponents'}
    assert report['machine']['threads'] == 1
    assert report['exponents'] == []
    first, second = report['rows']
    assert [first['config'], second['config']] == configs
    for row in report['rows']:
        assert row['mode'] == 'inference'
        assert row['shape'] == [16, 32]
        assert row['rounds'] == 2
        assert 0 < row['min_s'] <= row['median_s'] <= row['p90_s']
        assert row['images_per_second'] == pytest.approx(3 / row['median_s'])
    assert first['ratio'] == 1.0
    assert second['ratio'] == pytest.approx(
        second['median_s'] / first['median_s']
    )
    # 3x3 and 1x1 convolution of the head, over one image.
    wider = 2 * 4 * 9 + 2 * 2
    assert second['macs'] - first['macs'] == 16 * 32 * wider
    assert second['params'] - first['params'] == wider + 2 * 2


def test_training_sizes_profile_and_the_same_config_twice(configs, capsys):
    config = configs[0]
    report = run_json(
        capsys,
        *(config, config, '--sizes', '16', '32', '--batch', '2'),
        *('--train', '--profile', '--amp'),
    )
    names = [config, f'{config} #2']
    assert report['amp']
    assert [
        (row['mode'], row['shape'][0], row['config']) for row in report['rows']
    ] == [
        (mode, size, name)
        for mode in ('inference', 'training step')
        for size in (16, 32)
        for name in names
    ]
    assert [(x['mode'], x['config']) for x in report['exponents']] == [
        (mode, name)
        for mode in ('inference', 'training step')
        for name in names
    ]
    assert all(
        isinstance(x['time'], float) and 'memory' in x
        for x in report['exponents']
    )
    for profile in report['profiles']:
        assert profile['operators']['convolution']['seconds'] > 0
        assert ('modules' in profile) == (profile['mode'] == 'inference')
    assert len(report['profiles']) == 8
    modules = {x['module']: x for x in report['profiles'][0]['modules']}
    assert modules['decode_head.convs.0.conv']['type'] == 'Conv2d'
    assert modules['decode_head.convs.0.conv']['self_s'] > 0


def test_text(configs, capsys):
    args = (*configs, '--sizes', '16', '24', '--rounds', '1')
    assert main([*args, '--threads', '1', '--profile']) == 0
    captured = capsys.readouterr()
    assert '16 x 16' in captured.out
    assert 'pixels ^' in captured.out
    assert 'kind of operator' in captured.out
    assert 'self ms' in captured.out
    assert 'inference, 24 x 24' in captured.err


def test_training_step_learns_and_inference_does_not(configs):
    device = torch.device('cpu')
    (candidate,) = network_calls.build_candidates(
        configs[:1], shapes=[(16, 16)], device=device
    )
    model = candidate.model
    assert not model.training

    def changes(make, **settings):
        before = [x.detach().clone() for x in model.parameters()]
        call = make(
            candidate, shape=(16, 16), batch=2, device=device, **settings
        )
        result = call()
        return result, [
            not torch.equal(old, new)
            for old, new in zip(before, model.parameters(), strict=True)
        ]

    logits, changed = changes(network_calls.make_inference, amp=True)
    assert logits.shape == (2, 2, 16, 16)
    assert not logits.requires_grad and not any(changed)
    assert logits.dtype == torch.bfloat16
    model.train()
    _, changed = changes(network_calls.make_training, amp=False)
    assert all(changed)
    assert all(x.grad is None for x in model.parameters())
    # The optimiser goes on for the next shape.
    optimizer = candidate.optimizer
    changes(network_calls.make_training, amp=False)
    assert candidate.optimizer is optimizer


def test_round_runs_every_config_once(configs, monkeypatch):
    order = []

    def make_fake(candidate, **_):
        return lambda: order.append(candidate.name)

    monkeypatch.setattr(benchmark, 'make_inference', make_fake)
    monkeypatch.setattr(benchmark, 'peak_extra_bytes', lambda *_, **__: None)
    report = benchmark.measure_networks(configs, shapes=[(8, 8)], rounds=3)
    # Two rounds of warm-up, every other round backwards.
    forth, back = configs, configs[::-1]
    assert order == [*forth, *back, *forth, *back, *forth]
    assert [row['extra_bytes'] for row in report['rows']] == [None, None]


def test_exponents_by_config():
    rows = [
        {
            'mode': 'inference',
            'config': config,
            'shape': [size, 2 * size],
            'median_s': 1e-6 * (2 * size**2) ** power,
            'extra_bytes': memory and memory * size**2,
        }
        for size in (8, 16, 64)
        for config, power, memory in (('a', 1.0, 5), ('b', 2.0, None))
    ]
    a, b = fit_exponents(rows)
    assert a['time'] == pytest.approx(1.0)
    assert a['memory'] == pytest.approx(1.0)
    assert b['time'] == pytest.approx(2.0)
    assert b['memory'] is None


def test_batch_norm_over_one_value(configs, monkeypatch, capsys):
    def fail(self, *_):
        raise ValueError(
            'Expected more than 1 value per channel when training, got ...'
        )

    monkeypatch.setattr('mmseg.models.EncoderDecoder.loss', fail)
    args = (configs[0], '--shape', '16', '16', '--train', '--rounds', '1')
    assert main([*args]) == 1
    assert 'use --batch 2 or more' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('no-such_cfd-320',), 'neither a file nor a shipped config'),
        (('crackssm_cfd-320', '--sizes', '8', '0'), '--sizes: expected'),
        (('crackssm_cfd-320', '--shape', '0', '8'), '--shape: expected'),
        (('crackssm_cfd-320', '--batch', '0'), '--batch: expected'),
        (('crackssm_cfd-320', '--rounds', '0'), '--rounds: expected'),
        (('crackssm_cfd-320', '--device', 'x'), '--device: expected'),
    ],
)
def test_bad_arguments_are_one_line(capsys, args, message):
    assert main([*args]) == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    assert message in captured.err
    assert captured.err.startswith('Error: ')
    assert captured.err.count('\n') == 1


def test_config_without_a_model(repo_root, capsys):
    config = repo_root / 'configs' / '_base_' / 'default_runtime.py'
    assert main([str(config)]) == 1
    assert 'has no model' in capsys.readouterr().err


def test_script(repo_root, monkeypatch, capsys):
    tool = repo_root / 'tools' / 'analysis' / 'benchmark.py'
    monkeypatch.setattr(sys, 'argv', [str(tool), 'x', '--rounds', '0'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name='__main__')
    assert end.value.code == 1
    assert '--rounds' in capsys.readouterr().err
