import os

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn

from mmseg_crackssm.analysis import (
    count_flops,
    count_params,
    format_report,
    measure_config,
)
from mmseg_crackssm.models.layers import S6
from mmseg_crackssm.ops import selective_scan
from mmseg_crackssm.ops.selective_scan import selective_scan_flops


class Probe(nn.Module):
    """A model whose forward is one function of the image (1, 3, H, W)."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.function = function
        self.layer = layer

    def forward(self, x, mode):
        assert mode == 'tensor' and not self.training
        assert not torch.is_grad_enabled()
        return self.function(x) if self.layer is None else self.layer(x)


def macs_of(function=None, layer=None, shape=(6, 8)):
    report = count_flops(Probe(function, layer=layer), shape=shape)
    kinds = {k: v['macs'] for k, v in report['by_kind'].items() if 'macs' in v}
    assert report['macs'] == sum(kinds.values())
    return {k: v for k, v in kinds.items() if v}


@pytest.mark.parametrize(
    ('layer', 'macs'),
    [
        (nn.Conv2d(3, 10, 3, padding=1), 6 * 8 * 10 * 3 * 9),
        (nn.Conv2d(3, 10, 3, stride=2), 2 * 3 * 10 * 3 * 9),
        (nn.Conv2d(3, 6, 5, padding=2, groups=3), 6 * 8 * 6 * 25),
        (nn.Conv2d(3, 4, (1, 3), dilation=2), 6 * 4 * 4 * 3 * 3),
        (nn.ConvTranspose2d(3, 5, 2, stride=2), 6 * 8 * 3 * 5 * 4),
        (
            nn.ConvTranspose2d(3, 6, 4, stride=2, groups=3, bias=False),
            6 * 8 * 6 * 16,
        ),
    ],
)
def test_convolutions(layer, macs):
    assert macs_of(layer=layer) == {'convolution': macs}


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('ndim', [1, 2, 3, 4])
def test_linear(bias, ndim):
    layer = nn.Linear(8, 5, bias=bias)
    rows = {1: 1, 2: 6, 3: 18, 4: 18}[ndim]

    def forward(x):
        return layer(x[(0,) * (4 - ndim)])

    assert macs_of(forward) == {'linear': rows * 8 * 5}


def test_conv1d_and_functional():
    weight = torch.randn(7, 6, 3)
    assert macs_of(lambda x: F.conv1d(x[0], weight)) == {
        'convolution': 3 * 6 * 7 * 6 * 3
    }


@pytest.mark.parametrize(
    'function',
    [
        lambda x: torch.bmm(x[0], x[0].mT),
        lambda x: x @ x.mT,
        lambda x: torch.einsum('bchw,bcvw->bchv', x, x),
        lambda x: torch.baddbmm(x[0, :, :, :1], x[0], x[0].mT),
    ],
)
def test_matrix_products(function):
    assert macs_of(function) == {'matmul': 3 * 6 * 8 * 6}


def test_vector_products():
    assert macs_of(lambda x: x[0, 0] @ x[0, 0, 0]) == {'linear': 6 * 8}
    assert macs_of(lambda x: x[0, 0, 0] @ x[0, 0, 0]) == {'matmul': 8}
    assert macs_of(
        lambda x: torch.addbmm(x[0, 0], x[0], x[0, :, :, :8].mT @ x[0])
    ) == {'matmul': 3 * 8 * 6 * 8 + 3 * 6 * 8 * 8}


def test_attention():
    # 6 queries and keys of width 8, for each of 3 "heads".
    macs = 2 * 3 * 6 * 6 * 8
    assert macs_of(lambda x: F.scaled_dot_product_attention(x, x, x)) == {
        'matmul': macs
    }


@pytest.mark.parametrize('batch_first', [True, False])
def test_multi_head_attention_is_not_hidden_by_its_fused_form(batch_first):
    layer = nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(x):
        x = x[0]
        return layer(x, x, x, need_weights=False)[0]

    batch, length = (3, 6) if batch_first else (6, 3)
    layer.eval()
    assert macs_of(forward) == {
        'linear': 4 * 18 * 8 * 8,
        'matmul': 2 * batch * length * length * 8,
    }
    assert torch.backends.mha.get_fastpath_enabled()


def test_elementwise_work_and_norms_count_nothing():
    layer = nn.Sequential(
        nn.BatchNorm2d(3), nn.LayerNorm(8), nn.GELU(), nn.AvgPool2d(2)
    )
    assert macs_of(layer=layer) == {}


def test_scan_is_separate():
    def forward(x):
        u = x[:, 0]
        return selective_scan(
            u, u, A=-torch.ones(6, 4), B=u[:, :4], C=u[:, :4], D=u[0, :, 0]
        )

    report = count_flops(Probe(forward), shape=(6, 8))
    expected = selective_scan_flops(batch=1, dim=6, length=8, d_state=4)
    assert report['macs'] == 0
    assert report['scan_flops'] == expected > 0
    assert report['by_kind']['scan'] == {'flops': expected}


@pytest.mark.parametrize('asked', ['mamba_ssm', 'reference'])
@pytest.mark.parametrize('by_variable', [False, True])
def test_scan_counts_whatever_the_backend(monkeypatch, by_variable, asked):
    layer = S6(4, d_state=3, n_groups=2)
    if by_variable:
        monkeypatch.setenv('MMSEG_CRACKSSM_SCAN', asked)
    else:
        layer.backend = asked
    before = layer.backend

    def forward(x):
        return layer(x.unflatten(2, (2, 4))[0, :2])

    model = Probe(forward)
    model.scan = layer
    report = count_flops(model, shape=(8, 7))
    expected = selective_scan_flops(batch=2, dim=8, length=7, d_state=3)
    assert report['scan_flops'] == expected
    assert layer.backend == before
    variable = os.environ.get('MMSEG_CRACKSSM_SCAN')
    assert variable == (asked if by_variable else None)


def test_params_by_module():
    model = nn.Module()
    model.scale = nn.Parameter(torch.zeros(2))
    model.a = nn.Linear(3, 4)
    model.b = nn.Sequential(nn.Linear(3, 5, bias=False), model.a)
    model.b[0].weight.requires_grad = False
    assert count_params(model) == {'': 2, 'a': 16, 'b': 15}


def test_mode_is_restored():
    model = Probe(None, layer=nn.Conv2d(3, 1, 1)).train()
    count_flops(model, shape=(4, 4))
    assert model.training and model.layer.training
    assert torch.is_grad_enabled()
    assert not model.layer._forward_hooks


@pytest.mark.parametrize('shape', [(4,), (4, 0), (1, 4, 4)])
def test_bad_shape_is_refused(shape):
    with pytest.raises(ValueError, match='height and width'):
        count_flops(Probe(None, layer=nn.Identity()), shape=shape)


def segmentor_config():
    norm_cfg = dict(type='SyncBN')
    head = dict(
        type='FCNHead',
        in_channels=4,
        channels=6,
        num_convs=1,
        concat_input=False,
        num_classes=2,
        out_channels=1,
        norm_cfg=norm_cfg,
    )
    backbone = dict(
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
        upsample_cfg=dict(type='InterpConv'),
    )
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor'),
                backbone=backbone,
                decode_head=dict(in_index=1, **head),
                auxiliary_head=dict(in_index=1, **head),
                train_cfg=dict(),
                test_cfg=dict(mode='whole'),
            ),
        )
    )


def test_segmentor_from_config_by_hand():
    report = measure_config(segmentor_config(), shape=(16, 32))
    area = 16 * 32
    backbone_macs = (
        area * 9 * (3 * 4)  # encoder, level 0
        + area // 4 * 9 * (4 * 8)  # encoder, level 1
        + area * 8 * 4  # 1x1 after up-sampling
        + area * 9 * (8 * 4)  # decoder, level 0
    )
    head_macs = area * (9 * 4 * 6 + 6)
    # Weights, then scale and shift of the norms.
    backbone_params = 9 * (3 * 4 + 4 * 8 + 8 * 4) + 8 * 4 + 2 * (4 + 8 + 4 + 4)
    head_params = 9 * 4 * 6 + 2 * 6 + (6 + 1)
    assert report == {
        'params': backbone_params + head_params,
        'auxiliary_params': head_params,
        'macs': backbone_macs + head_macs,
        'scan_flops': 0,
        'shape': [16, 32],
        'by_kind': {
            'convolution': {'macs': backbone_macs + head_macs},
            'linear': {'macs': 0},
            'matmul': {'macs': 0},
            'scan': {'flops': 0},
        },
        'by_module': {
            'backbone': {
                'params': backbone_params,
                'macs': backbone_macs,
                'scan_flops': 0,
            },
            'decode_head': {
                'params': head_params,
                'macs': head_macs,
                'scan_flops': 0,
            },
        },
    }
    text = format_report(report)
    assert f'{report["params"]:,}' in text
    assert f'{head_params:,}' in text.splitlines()[-1]


def test_cascade_and_grey_images():
    """Every stage of a cascade counts; the channels come from the config."""
    cfg = segmentor_config()
    single = measure_config(cfg, shape=(16, 16))
    head = cfg.model.decode_head
    cfg.model.type = 'CascadeEncoderDecoder'
    cfg.model.num_stages = 2
    cfg.model.auxiliary_head = None
    ocr = dict(head, type='OCRHead', ocr_channels=4)
    for key in ('num_convs', 'concat_input'):
        ocr.pop(key)
    cfg.model.decode_head = [head, ocr]
    cfg.model.data_preprocessor.update(mean=[0.0], std=[1.0])
    cfg.model.backbone.in_channels = 1
    report = measure_config(cfg, shape=(16, 16))
    assert report['by_kind']['matmul']['macs'] > 0
    saved = 16 * 16 * 9 * 2 * 4
    assert (
        report['by_module']['backbone']['macs']
        == single['by_module']['backbone']['macs'] - saved
    )
    assert (
        report['by_module']['decode_head']['macs']
        > single['by_module']['decode_head']['macs']
    )


def test_config_without_model_is_refused():
    with pytest.raises(ValueError, match='model'):
        measure_config(Config(dict(a=1)), shape=(16, 16))
