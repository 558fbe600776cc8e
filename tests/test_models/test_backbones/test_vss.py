import copy
import json

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from torch import nn

from checks import load_script, max_rel_err, untrained_parameters
from mmseg_crackssm.models.backbones.vss import (
    ARCHITECTURES,
    VSSBackbone,
    resolve_arch,
)

GOLDEN = ['vmamba_v0', 'vmamba_v05_noz_ratio1', 'vmamba_v05_noz_ratio2']
TINY = dict(channels=4, depths=(1, 2, 1), d_state=2)


@pytest.fixture(scope='module')
def converter(repo_root):
    path = repo_root / 'tools' / 'model_converters' / 'vmamba.py'
    return load_script(path)


def golden_arch(kwargs: dict) -> dict:
    """Our architecture for the arguments of the reference."""
    style = 'vanilla' if kwargs['forward_type'] == 'v0' else 'v05_noz'
    return dict(
        channels=kwargs['dims'],
        depths=kwargs['depths'],
        block_style=style,
        expand=kwargs['ssm_ratio'],
        d_state=kwargs['ssm_d_state'],
    )


@pytest.fixture(scope='module', params=GOLDEN)
def golden(request, golden_dir):
    return torch.load(golden_dir / f'{request.param}.pt', weights_only=True)


def build_golden(golden: dict, converter) -> VSSBackbone:
    model = VSSBackbone(arch=golden_arch(golden['kwargs']))
    model.load_state_dict(converter.convert(golden['state_dict']))
    return model.eval()


@pytest.mark.parametrize(
    ('dtype', 'suffix', 'tolerance'),
    [(torch.float64, 'f64', 1e-9), (torch.float32, 'f32', 2e-5)],
)
def test_outputs_equal_vmamba(golden, converter, dtype, suffix, tolerance):
    model = build_golden(golden, converter).to(dtype)
    with torch.no_grad():
        outs = model(golden['input'].to(dtype))
    expected = golden[f'outs_{suffix}']
    assert len(outs) == len(expected) == 4
    for out, target in zip(outs, expected, strict=True):
        assert max_rel_err(out, target) < tolerance


def test_gradients_equal_vmamba(golden, converter):
    model = build_golden(golden, converter)
    image = golden['input'].clone().requires_grad_()
    loss = sum(
        (weight * out).sum()
        for weight, out in zip(
            golden['grad_weights_seeded'], model(image), strict=True
        )
    )
    loss.backward()
    assert max_rel_err(image.grad, golden['grad_input']) < 2e-5
    gradients = {name: p.grad for name, p in model.named_parameters()}
    conv_stem = golden['kwargs']['patchembed_version'] == 'v2'
    assert golden['grad_params']
    for key, expected in golden['grad_params'].items():
        name = converter.convert_key(key, conv_stem=conv_stem)
        assert max_rel_err(gradients[name], expected) < 2e-5, name


def test_intermediates_equal_vmamba(golden, converter):
    model = build_golden(golden, converter)
    block = model.stages[0][0]
    # The fused scan, of which one thread is enough, passes S6's hook by.
    block.ss2d.s6.fused = False
    found = {}

    def keep(name):
        def hook(module, args, output):
            found.setdefault(name, output)
            found.setdefault(f'{name}_input', args[0])

        return hook

    model.patch_embed.register_forward_hook(keep('patch_embed_out'))
    block.ss2d.register_forward_hook(keep('ss2d_out'))
    block.ss2d.s6.register_forward_hook(keep('scan'))
    block.register_forward_hook(keep('block_out'))
    model.downsamples[0].register_forward_hook(keep('downsample0_out'))
    with torch.no_grad():
        model(golden['input'])
    found['ss2d_in'] = found['ss2d_out_input']
    for name, expected in golden['intermediates_block0'].items():
        if golden['meta']['style'] == 'v0':
            expected = expected.permute(0, 3, 1, 2)
        assert max_rel_err(found[name], expected) < 2e-5, name
    if golden['scan_block0']:
        u, out = golden['scan_block0']['u'], golden['scan_block0']['out']
        assert max_rel_err(found['scan_input'].flatten(1, 2), u) < 2e-5
        assert max_rel_err(found['scan'].flatten(1, 2), out) < 2e-5


def count_parameters(arch: str) -> int:
    with torch.device('meta'):
        model = VSSBackbone(arch=arch)
    return sum(p.numel() for p in model.parameters())


RELEASED = [name for name in ARCHITECTURES if name != 'crackssm']


@pytest.mark.parametrize('arch', RELEASED)
def test_parameter_counts_equal_vmamba(arch, golden_dir):
    counts = json.loads((golden_dir / 'counts.json').read_text())['VMamba']
    assert len(RELEASED) == len(counts) == 9
    # The reference names are vanilla_vmamba_tiny and vmamba_tiny_s2l5.
    name = f'vmamba_{arch}'
    if arch.startswith('vanilla_'):
        name = 'vanilla_vmamba_' + arch.removeprefix('vanilla_')
    expected = counts[name]['backbone_params_with_4_outnorm']
    assert count_parameters(arch) == expected


def test_crackssm_encoder_size():
    """The design's figure for the encoder is 1.80 M."""
    assert round(count_parameters('crackssm') / 1e6, 2) == 1.80


@pytest.mark.parametrize('block_style', ['vanilla', 'v05_noz'])
@pytest.mark.parametrize('size', [(64, 64), (45, 61), (33, 3)])
def test_any_input_size(block_style, size):
    arch = dict(channels=4, depths=(1, 1, 1, 1), d_state=2)
    model = VSSBackbone(arch=arch, block_style=block_style)
    outs = model(torch.randn(1, 3, *size))
    for i, out in enumerate(outs):
        stride = 4 * 2**i
        expected = [-(-length // stride) for length in size]
        assert out.shape == (1, 4 * 2**i, *expected)
        assert out.isfinite().all()


@pytest.mark.parametrize('block_style', ['vanilla', 'v05_noz'])
def test_every_parameter_gets_a_gradient(block_style):
    model = VSSBackbone(arch=TINY, block_style=block_style, out_indices=(2,))
    outs = model(torch.randn(2, 3, 40, 36))
    sum(out.square().sum() for out in outs).backward()
    assert untrained_parameters(model) == []


def test_out_indices():
    model = VSSBackbone(arch=TINY, out_indices=[2, 0])
    outs = model(torch.randn(1, 3, 32, 32))
    assert [out.shape[1] for out in outs] == [4, 16]
    assert model.out_channels == (4, 16)
    assert not hasattr(model, 'norm1')


@pytest.mark.parametrize('frozen_stages', [-1, 3])
def test_stages_that_nobody_reads_are_not_built(frozen_stages):
    whole = VSSBackbone(arch=TINY, out_indices=(0, 1, 2)).eval()
    model = VSSBackbone(
        arch=TINY,
        out_indices=(0, 1),
        drop_path_rate=0.3,
        frozen_stages=frozen_stages,
    )
    assert model.stages[1][1].drop_path.drop_prob == pytest.approx(0.2)
    missing, unexpected = model.load_state_dict(
        whole.state_dict(), strict=False
    )
    assert not missing and unexpected
    image = torch.randn(1, 3, 32, 32)
    outs = model.eval()(image)
    torch.testing.assert_close(outs, whole(image)[:2])
    if frozen_stages < 0:
        sum(out.square().sum() for out in outs).backward()
        assert untrained_parameters(model) == []
    else:
        assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3])
def test_frozen_stages(frozen_stages):
    model = VSSBackbone(
        arch=TINY,
        out_indices=(0, 1, 2),
        frozen_stages=frozen_stages,
        drop_path_rate=0.5,
    )
    model.train()
    prefixes = {
        -1: (),
        0: ('patch_embed',),
        1: ('patch_embed', 'stages.0', 'norm0', 'downsamples.0'),
        3: ('patch_embed', 'stages', 'norm', 'downsamples'),
    }[frozen_stages]
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(prefixes), name
    frozen = [
        block.training
        for i, stage in enumerate(model.stages)
        for block in stage
        if i < frozen_stages
    ]
    assert not any(frozen)
    if frozen_stages < 3:
        outs = model(torch.randn(1, 3, 32, 32))
        sum(out.sum() for out in outs).backward()


def test_checkpointing_gives_the_same_result():
    plain = VSSBackbone(arch=TINY, out_indices=(0, 1, 2))
    saving = VSSBackbone(arch=TINY, out_indices=(0, 1, 2), with_cp=True)
    saving.load_state_dict(plain.state_dict())
    calls = []
    block = saving.stages[1][0]
    block.register_forward_pre_hook(lambda *_: calls.append(1))
    image = torch.randn(1, 3, 32, 32)
    results = []
    for model in (plain, saving):
        outs = model(image)
        sum(out.square().sum() for out in outs).backward()
        results.append((outs, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(results[0], results[1])
    assert len(calls) == 2  # forward, and once more in the backward pass


@pytest.mark.parametrize('block_style', ['vanilla', 'v05_noz'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_is_finite_and_close(block_style, dtype):
    # Not TINY: LayerNorm over two channels is a sign, which rounding flips.
    arch = dict(channels=16, depths=(1, 1))
    model = VSSBackbone(arch=arch, block_style=block_style, out_indices=(0, 1))
    image = torch.randn(1, 3, 40, 36)
    expected = model(image)
    with torch.autocast('cpu', dtype=dtype):
        outs = model(image)
    for out, target in zip(outs, expected, strict=True):
        assert out.isfinite().all()
        # The maps are normalised: this is relative to a deviation of 1.
        assert (out.float() - target).abs().mean() < 0.02
    sum(out.float().square().sum() for out in outs).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_drop_path_rises_linearly():
    model = VSSBackbone(arch=TINY, out_indices=(2,), drop_path_rate=0.3)
    rates = [
        block.drop_path.drop_prob for stage in model.stages for block in stage
    ]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_built_from_a_config_that_stays_unchanged():
    cfg = ConfigDict(
        type='VSSBackbone',
        arch=dict(channels=4, depths=[1, 1]),
        block_style='v05_noz',
        out_indices=[0, 1],
    )
    before = copy.deepcopy(cfg)
    model = MODELS.build(cfg)
    assert isinstance(model, VSSBackbone)
    assert model.stages[0][0].mlp is not None
    assert cfg == before
    presets = copy.deepcopy(ARCHITECTURES)
    resolve_arch('crackssm')['depths'] = ()
    assert presets == ARCHITECTURES


def test_backend_and_scan_dtype_reach_every_scan():
    model = VSSBackbone(
        arch=TINY, out_indices=(2,), backend='torch', scan_dtype='float64'
    )
    scans = [block.ss2d.s6 for stage in model.stages for block in stage]
    assert {scan.backend for scan in scans} == {'torch'}
    assert {scan.scan_dtype for scan in scans} == {torch.float64}


def test_pretrained_checkpoint(tmp_path, golden, converter):
    path = tmp_path / 'vmamba.pth'
    weights = converter.convert(golden['state_dict'])
    # Published files have no output norms.
    weights = {k: v for k, v in weights.items() if not k.startswith('norm')}
    torch.save(weights, path)
    model = VSSBackbone(
        arch=golden_arch(golden['kwargs']),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    model.init_weights()
    state_dict = model.state_dict()
    assert weights
    for name, value in weights.items():
        assert torch.equal(state_dict[name], value), name
    assert torch.equal(model.norm3.weight, torch.ones_like(model.norm3.weight))


@pytest.mark.parametrize(
    'wrap',
    [
        lambda weights: weights,
        lambda weights: dict(state_dict=weights),
        # As the releases of VMamba are.
        lambda weights: dict(model=weights, epoch=1),
        lambda weights: {f'backbone.{k}': v for k, v in weights.items()},
        lambda weights: {},
    ],
    ids=['bare', 'state_dict', 'model', 'segmentor', 'empty'],
)
def test_unconverted_checkpoint_is_refused(tmp_path, wrap):
    weights = {
        'patch_embed.0.weight': torch.zeros(1),
        'layers.0.blocks.0.op.Ds': torch.zeros(1),
    }
    path = tmp_path / 'raw.pth'
    torch.save(wrap(weights), path)
    model = VSSBackbone(
        arch=TINY,
        out_indices=(0, 1, 2),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    with pytest.raises(ValueError, match='tools/model_converters/vmamba.py'):
        model.init_weights()


def segmentor_like() -> nn.Module:
    """A model around the encoder, which is not the encoder's whole."""
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.encoder = VSSBackbone(arch=TINY, out_indices=(0, 1, 2))
    model.head = nn.Linear(2, 2)
    return model


def test_weights_of_a_whole_model(tmp_path):
    path = tmp_path / 'whole.pth'
    whole = segmentor_like()
    torch.save(dict(state_dict=whole.state_dict()), path)
    load_checkpoint(segmentor_like(), str(path), strict=True)
    # Other parts alone leave the encoder as it is.
    head = {k: v for k, v in whole.state_dict().items() if 'head' in k}
    segmentor_like().load_state_dict(head, strict=False)

    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    encoder = dict(type='VSSBackbone', arch=TINY, out_indices=(0, 1, 2))
    with pytest.raises(ValueError, match="prefix='backbone.encoder.'"):
        MODELS.build(dict(encoder, init_cfg=init_cfg)).init_weights()
    init_cfg['prefix'] = 'backbone.encoder.'
    model = MODELS.build(dict(encoder, init_cfg=init_cfg))
    model.init_weights()
    for name, value in whole.backbone.encoder.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='tiny'), 'vanilla_tiny'),
        (dict(arch=dict(channels=4)), 'required'),
        (dict(arch=dict(channels=4, depths=(1,), width=2)), 'width'),
        (dict(arch=dict(channels=(4, 8), depths=(1,))), 'per depth'),
        (dict(arch=TINY, out_indices=(3,)), 'out_indices'),
        (dict(arch=TINY, out_indices=()), 'out_indices'),
        (dict(arch=TINY, out_indices=(0,), block_style='v2'), 'block_style'),
        (dict(arch=TINY, out_indices=(0,), frozen_stages=4), 'frozen_stages'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VSSBackbone(**kwargs)
