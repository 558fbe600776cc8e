"""DAMamba: sizes, options and errors."""

import copy
import json

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from torch import nn

from checks import untrained_parameters
from mmseg_crackssm.analysis.flops import count_flops
from mmseg_crackssm.apis.checkpoint import check_fits
from mmseg_crackssm.apis.errors import UsageError
from mmseg_crackssm.models.backbones.damamba import (
    ARCHITECTURES,
    DAMamba,
    resolve_arch,
)
from mmseg_crackssm.models.layers.damamba_block import DAMambaBlock

TINY = dict(channels=(8, 16, 16), depths=(1, 2, 1), head_dim=8)
SCALED = dict(TINY, scaled_stages=(1, 2))


@pytest.mark.parametrize(
    ('arch', 'letter'), [('tiny', 'T'), ('small', 'S'), ('base', 'B')]
)
def test_parameter_counts_equal_damamba(arch, letter, golden_dir):
    counts = json.loads((golden_dir / 'counts.json').read_text())['DAMamba']
    with torch.device('meta'):
        model = DAMamba(arch=arch)
    sizes = [p.numel() for p in model.parameters()]
    assert sum(sizes) == counts[letter]['backbone_params']
    frozen = [p.numel() for p in model.parameters() if not p.requires_grad]
    expected = counts[letter]['frozen_conv_constant_params_included']
    assert sum(frozen) == expected


class Tensors(nn.Module):
    """A backbone, called as mmengine calls models."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images, mode):
        return self.backbone(images)


@pytest.mark.parametrize(
    ('arch', 'letter', 'classifier'),
    [('tiny', 'T', 512000), ('small', 'S', 512000), ('base', 'B', 640000)],
)
def test_macs_equal_damamba(arch, letter, classifier, golden_dir):
    counts = json.loads((golden_dir / 'counts.json').read_text())['DAMamba']
    found = count_flops(Tensors(DAMamba(arch=arch)), shape=(224, 224))
    expected = counts[letter]['aten_conv_matmul_macs_224_cls']
    assert found['macs'] + classifier == expected


@pytest.mark.parametrize('size', [(64, 64), (45, 61), (33, 3)])
def test_any_input_size(size):
    arch = dict(channels=(8, 8, 16, 16), depths=(1, 1, 1, 1), head_dim=8)
    outs = DAMamba(arch=arch).eval()(torch.randn(1, 3, *size))
    for i, out in enumerate(outs):
        stride = 4 * 2**i
        expected = [-(-length // stride) for length in size]
        assert out.shape == (1, arch['channels'][i], *expected)
        assert out.isfinite().all()


def test_one_memory_layout_from_the_stem_on():
    model = DAMamba(arch=TINY, out_indices=(0, 1, 2)).eval()
    laid_out = {}

    def note(name):
        def hook(module, args, output):
            laid_out[name] = output.is_contiguous(
                memory_format=torch.channels_last
            )

        return hook

    for name, module in model.named_modules():
        # Sampling and S6 in it give planes, as the scan reads them.
        if isinstance(module, (nn.Conv2d, DAMambaBlock)):
            module.register_forward_hook(note(name))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert {'stem.0.conv', 'stages.0.0', 'stages.2.0'} <= set(laid_out)
    assert [name for name, fits in laid_out.items() if not fits] == []


def test_every_parameter_gets_a_gradient():
    model = DAMamba(arch=SCALED, layer_scale=0.5, out_indices=(2,))
    outs = model(torch.randn(2, 3, 40, 36))
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert untrained_parameters(model) == []


def test_initialised_as_the_released_code():
    model = DAMamba(arch='tiny')
    block = model.stages[2][0]
    std = {
        name: dict(block.named_parameters())[f'{name}.weight'].std().item()
        for name in ('mixer.in_proj', 'mixer.conv', 'ffn.fc1', 'ffn.fc2')
    }
    assert std['mixer.in_proj'] == pytest.approx((2 / 320) ** 0.5, rel=0.05)
    # Depth-wise: the fan-out is that of one channel.
    assert std['mixer.conv'] == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert std['ffn.fc1'] == pytest.approx((2 / 960) ** 0.5, rel=0.05)
    assert std['ffn.fc2'] == pytest.approx((2 / 320) ** 0.5, rel=0.05)
    offset = block.mixer.das.offset
    assert offset.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not offset.bias.any()


def test_out_indices_build_no_more_than_is_read():
    whole = DAMamba(arch=TINY, out_indices=(0, 1, 2)).eval()
    model = DAMamba(arch=TINY, out_indices=[1, 0], drop_path_rate=0.3).eval()
    assert model.out_channels == (8, 16)
    assert len(model.stages) == len(model.norms) == 2
    assert model.stages[1][1].drop_path.drop_prob == pytest.approx(0.2)
    missing, unexpected = model.load_state_dict(
        whole.state_dict(), strict=False
    )
    assert not missing and unexpected
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(image), whole(image)[:2])


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3])
def test_frozen_stages(frozen_stages):
    model = DAMamba(
        arch=TINY, out_indices=(0, 1, 2), frozen_stages=frozen_stages
    )
    model.train()
    prefixes = {
        -1: (),
        0: ('stem',),
        1: ('stem', 'stages.0', 'norms.0', 'downsamples.0'),
        3: ('stem', 'stages', 'norms', 'downsamples'),
    }[frozen_stages]
    for name, parameter in model.named_parameters():
        if not name.endswith('.identity'):
            assert parameter.requires_grad != name.startswith(prefixes), name
    before = copy.deepcopy(dict(model.named_buffers()))
    outs = model(torch.randn(2, 3, 32, 32))
    if frozen_stages < 3:
        sum(out.sum() for out in outs).backward()
    # The running statistics of what is frozen stay, too.
    for name, buffer in model.named_buffers():
        same = torch.equal(buffer, before[name])
        assert same == name.startswith(prefixes), name


def test_checkpointing_gives_the_same_result():
    plain = DAMamba(arch=TINY, out_indices=(0, 1, 2))
    saving = DAMamba(arch=TINY, out_indices=(0, 1, 2), with_cp=True)
    saving.load_state_dict(plain.state_dict())
    calls = []
    block = saving.stages[1][0]
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    image = torch.randn(2, 3, 32, 32)
    results = []
    for model in (plain, saving):
        outs = model(image)
        sum(out.square().sum() for out in outs).backward()
        # The running statistics of BN are among the buffers.
        buffers = {k: v.double() for k, v in model.named_buffers()}
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        results.append((outs, gradients, buffers))
    torch.testing.assert_close(results[0], results[1])
    assert len(calls) == 2  # forward, and once more in the backward pass
    assert block.norm2.momentum == plain.stages[1][0].norm2.momentum


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_is_finite_and_close(dtype):
    arch = dict(channels=(16, 32), depths=(1, 1))
    model = DAMamba(arch=arch, out_indices=(0, 1))
    image = torch.randn(2, 3, 40, 36)
    expected = model(image)
    with torch.autocast('cpu', dtype=dtype):
        outs = model(image)
    for out, target in zip(outs, expected, strict=True):
        assert out.isfinite().all()
        # The maps are normalised: this is relative to a deviation of 1.
        assert (out.float() - target).abs().mean() < 0.02
    sum(out.float().square().sum() for out in outs).backward()
    assert all(
        p.grad.isfinite().all() for p in model.parameters() if p.requires_grad
    )


def test_drop_path_rises_linearly():
    model = DAMamba(arch=TINY, out_indices=(2,), drop_path_rate=0.3)
    rates = [
        block.drop_path.drop_prob for stage in model.stages for block in stage
    ]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_layer_scale():
    model = DAMamba(arch=SCALED, out_indices=(2,), layer_scale=0.25)
    scales = {
        name: p for name, p in model.named_parameters() if '.scale' in name
    }
    assert {name.split('.')[1] for name in scales} == {'1', '2'}
    assert all((p == 0.25).all() for p in scales.values())
    none = DAMamba(arch=SCALED, out_indices=(2,), layer_scale=None)
    assert not any('.scale' in name for name, _ in none.named_parameters())


def test_built_from_a_config_that_stays_unchanged():
    cfg = ConfigDict(
        type='DAMamba',
        arch=dict(channels=[8, 16], depths=[1, 1], head_dim=8),
        out_indices=[0, 1],
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    )
    before = copy.deepcopy(cfg)
    model = MODELS.build(cfg)
    norms = [model.stem[0].norm, model.stages[0][0].norm2]
    norms.append(model.downsamples[0].norm)
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert cfg == before
    presets = copy.deepcopy(ARCHITECTURES)
    resolve_arch('tiny')['depths'] = ()
    assert presets == ARCHITECTURES


def test_backend_and_scan_dtype_reach_every_scan():
    model = DAMamba(
        arch=TINY, out_indices=(2,), backend='torch', scan_dtype='float64'
    )
    scans = [block.mixer.s6 for stage in model.stages for block in stage]
    assert {scan.backend for scan in scans} == {'torch'}
    assert {scan.scan_dtype for scan in scans} == {torch.float64}


def test_offsets_that_are_nan_name_their_layer():
    model = DAMamba(arch=TINY, out_indices=(0, 1, 2))
    with torch.no_grad():
        model.stages[1][1].mixer.das.offset.bias[0] = float('nan')
    with pytest.raises(ValueError, match=r"'stages\.1\.1\.mixer\.das': 16 of"):
        model(torch.randn(1, 3, 32, 32))


def inside(backbone):
    model = nn.Module()
    model.backbone = backbone
    model.head = nn.Linear(2, 2)
    return model


OTHERS = {
    'depths': (dict(TINY, depths=(1, 1, 1)), r'depths \(1, 1, 1\) and no'),
    'scaled': (SCALED, r'layer scale in stages \[1, 2\]'),
}


@pytest.mark.parametrize('other', OTHERS)
def test_checkpoint_of_another_size(other):
    """What strict=False would leave random is named instead."""
    arch, seems = OTHERS[other]
    options = dict(out_indices=(0, 1, 2))
    weights = DAMamba(arch=arch, **options).state_dict()
    message = (
        r'this model has depths \(1, 2, 1\) and no layer scale; the '
        f'checkpoint seems to have .*{seems}'
    )
    model = DAMamba(arch=TINY, **options)
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(weights, strict=False)
    weights = {f'backbone.{k}': v for k, v in weights.items()}
    with pytest.raises(UsageError, match=message):
        check_fits(inside(model), {'state_dict': weights}, 'some.pth')


def test_checkpoint_of_another_width():
    options = dict(out_indices=(0, 1, 2))
    arch = dict(TINY, channels=(8, 16, 32))
    weights = DAMamba(arch=arch, **options).state_dict()
    with pytest.raises(ValueError, match='another size. Set arch'):
        DAMamba(arch=TINY, **options).load_state_dict(weights, strict=False)


def test_weights_of_a_whole_model(tmp_path):
    def build():
        return inside(DAMamba(arch=TINY, out_indices=(0, 1, 2)))

    path = tmp_path / 'whole.pth'
    whole = build()
    torch.save(dict(state_dict=whole.state_dict()), path)
    load_checkpoint(build(), str(path), strict=True)
    # Other parts alone leave the backbone as it is.
    head = {k: v for k, v in whole.state_dict().items() if 'head' in k}
    build().load_state_dict(head, strict=False)
    init_cfg = dict(
        type='Pretrained', checkpoint=str(path), prefix='backbone.'
    )
    model = DAMamba(arch=TINY, out_indices=(0, 1, 2), init_cfg=init_cfg)
    model.init_weights()
    for name, value in whole.backbone.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='huge'), 'tiny'),
        (dict(arch=dict(channels=(16,))), 'required'),
        (dict(arch=dict(TINY, width=2)), 'width'),
        (dict(arch=dict(TINY, channels=(8, 16))), 'per depth'),
        (dict(arch=dict(TINY, mlp_ratios=(4,))), 'per depth'),
        (dict(arch=dict(TINY, scaled_stages=(3,))), 'scaled_stages'),
        (dict(arch=dict(TINY, head_dim=16)), '8 channels in stage 0'),
        (dict(arch=TINY, out_indices=(3,)), 'out_indices'),
        (dict(arch=TINY, out_indices=()), 'out_indices'),
        (dict(arch=TINY, out_indices=(0,), frozen_stages=4), 'frozen_stages'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DAMamba(**kwargs)
