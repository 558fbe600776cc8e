import json
import sys

import pytest
import torch

from mmseg_crackssm.analysis import benchmark
from mmseg_crackssm.analysis.bare_backbones import (
    BACKBONES,
    BareBackbone,
    build_backbone,
    find_missing,
)

TINY = dict(
    type='SwinTransformer',
    pretrain_img_size=32,
    embed_dims=8,
    depths=(1, 1),
    num_heads=(1, 2),
    strides=(4, 2),
    out_indices=(0, 1),
    drop_path_rate=0.0,
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(BACKBONES, 'tiny', TINY)
    monkeypatch.setitem(
        BACKBONES, 'narrow', {**TINY, 'embed_dims': 4, 'num_heads': (1, 1)}
    )


@pytest.mark.parametrize(
    # Swin-T has 28.3 M with its classifier, ConvNeXt-T 28.6 M (each of 768 x
    # 1000 weights, and a bias); the norms of the first maps are added.
    ('name', 'params'),
    [
        ('damamba-t', 24_927_302),
        ('swin-t', 28_288_354 - 769_000 + 2 * (96 + 192 + 384)),
        ('convnext-t', 28_589_128 - 769_000 + 2 * (96 + 192 + 384)),
    ],
)
def test_parameters(name, params):
    missing = find_missing([name])
    if missing:
        pytest.skip(missing[name])
    model = build_backbone(name)
    assert not model.training
    assert sum(x.numel() for x in model.parameters()) == params


def test_every_parameter_learns():
    model = BareBackbone(TINY)
    maps = model(torch.randn(1, 3, 32, 32))
    assert [tuple(x.shape) for x in maps] == [(1, 8, 8, 8), (1, 16, 4, 4)]
    loss = model.loss(torch.randn(1, 3, 32, 32), [])['loss']
    loss.backward()
    for name, param in model.named_parameters():
        assert param.grad is not None and param.grad.abs().sum() > 0, name


def test_benchmark(tiny, capsys):
    args = ('tiny', 'narrow', '--sizes', '32', '64', '--train')
    code = benchmark.main([*args, '--rounds', '1', '--json'])
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert 'left_out' not in report
    assert [
        (row['mode'], row['shape'], row['config']) for row in report['rows']
    ] == [
        (mode, [size, size], name)
        for mode in ('inference', 'training step')
        for size in (32, 64)
        for name in ('tiny', 'narrow')
    ]
    first, second = report['rows'][:2]
    assert first['params'] == sum(
        x.numel() for x in build_backbone('tiny').parameters()
    )
    assert first['macs'] > second['macs'] > 0


def test_without_mmpretrain(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'mmpretrain.models', None)
    assert find_missing(['tiny', 'swin-t', 'some_config.py']) == {}
    args = ('convnext-t', 'tiny', '--shape', '32', '32', '--rounds', '1')
    assert benchmark.main([*args]) == 0
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert 'convnext-t is left out: mmpretrain cannot be' in text
        assert 'pip install onedl-mmpretrain torchvision' in text
    assert '|  1.00 |' in captured.out
    assert benchmark.main(['convnext-t']) == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    assert 'nothing to measure: mmpretrain cannot' in captured.err
