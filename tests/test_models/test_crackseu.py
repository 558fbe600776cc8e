"""CrackSeU: parity with the released code, counts, and the Mamba blocks."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from checks import load_script, max_rel_err, untrained_parameters
from mmseg_crackssm.analysis.flops import count_params
from mmseg_crackssm.apis.checkpoint import check_fits
from mmseg_crackssm.apis.errors import UsageError
from mmseg_crackssm.models.backbones.crackseu import (
    BLOCKS,
    NORM_CFG,
    CrackSeUBackbone,
)

NORMS = {'LN_VT': NORM_CFG, 'BN': dict(type='BN')}
PARAMS = {
    'conv': 3_190_546,
    'VimBlock': 2_358_226,
    'VanillaVSSBlock': 1_828_306,
    'VSSBlock': 2_353_906,
    'CrackMambaBlock': 1_829_266,
}


@pytest.fixture(scope='module')
def converter(repo_root):
    path = repo_root / 'tools' / 'model_converters' / 'crackseu.py'
    return load_script(path)


@pytest.fixture(scope='module')
def base(repo_root):
    path = repo_root / 'configs' / '_base_' / 'models' / 'crackseu.py'
    return Config.fromfile(path).model


def build(base, blocks='conv', norm_cfg=NORM_CFG):
    init_default_scope('mmseg')
    cfg = copy.deepcopy(base)
    cfg.backbone.update(blocks=blocks)
    for part in (cfg.backbone, cfg.neck, cfg.auxiliary_head):
        part.norm_cfg = norm_cfg
    return MODELS.build(cfg)


@pytest.fixture(scope='module', params=['LN_VT', 'BN'])
def golden(request, golden_dir):
    stored = torch.load(
        golden_dir / f'crackseu_{request.param}.pt', weights_only=True
    )
    return request.param, stored


def weights_by_rule(golden):
    """The reference's weights, which its file describes by a rule."""
    seed = golden['meta']['seed']
    weights = {}
    for i, (name, shape, total) in enumerate(golden['parameters']):
        u = np.random.RandomState(seed * 100003 + i).random_sample(shape)
        if len(shape) >= 2:
            fan = u.size // shape[0]
            value = (2 * u - 1) * np.sqrt(4.5 / fan)
        else:
            value = 0.4 * (u - 0.5) + name.endswith('.weight')
        assert np.isclose(value.astype(np.float32).sum(dtype=float), total)
        weights[name] = torch.tensor(value.astype(np.float32))
    for j, (name, shape, *_) in enumerate(golden['buffers']):
        rng = np.random.RandomState(seed * 100003 + 50000 + j)
        u = rng.random_sample(shape)
        if name.endswith('running_mean'):
            u = 0.4 * (u - 0.5)
        elif name.endswith('running_var'):
            u = 0.5 + u
        else:
            u = np.zeros(shape)
        weights[name] = torch.tensor(np.float32(u))
    return weights


def build_golden(base, converter, golden):
    name, stored = golden
    model = build(base, norm_cfg=NORMS[name])
    weights = converter.convert(weights_by_rule(stored))
    result = model.load_state_dict(weights, strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    return model.eval()


def outputs(model, image):
    features = model.extract_feat(image)
    return model.decode_head(features), model.auxiliary_head(features)


@pytest.mark.parametrize(
    ('dtype', 'suffix', 'tolerance'),
    [(torch.float64, 'f64', 1e-9), (torch.float32, 'f32', 2e-5)],
)
def test_outputs_equal_crackseu(
    base, converter, golden, dtype, suffix, tolerance
):
    model = build_golden(base, converter, golden).to(dtype)
    with torch.no_grad():
        found = outputs(model, golden[1]['input'].to(dtype))
    for name, logits in zip(('main', 'side'), found, strict=True):
        expected = golden[1][f'{name}_{suffix}']
        assert max_rel_err(logits.sigmoid(), expected) < tolerance, name
        expected = golden[1][f'{name}_logit_f64'].to(dtype)
        assert max_rel_err(logits, expected) < 2e-5, name


def test_gradients_equal_crackseu(base, converter, golden):
    model = build_golden(base, converter, golden).double()
    image = golden[1]['input'].double().requires_grad_()
    loss = sum(
        (golden[1][f'grad_w_{name}'] * logits.sigmoid()).sum()
        for name, logits in zip(
            ('main', 'side'), outputs(model, image), strict=True
        )
    )
    loss.backward()
    assert max_rel_err(image.grad, golden[1]['grad_input'].double()) < 2e-5
    gradients = {name: p.grad for name, p in model.named_parameters()}
    norm = 'bn' if golden[0] == 'BN' else 'ln'
    assert len(golden[1]['grad_params']) == 5
    for key, expected in golden[1]['grad_params'].items():
        module, _, parameter = key.rpartition('.')
        name = converter.convert_module(module, norm=norm)
        found = gradients[f'{name}.{parameter}']
        assert max_rel_err(found, expected.double()) < 2e-5, key


@pytest.mark.parametrize('block', BLOCKS)
def test_parameters_are_the_papers(base, block, golden_dir):
    params = count_params(build(base, blocks=block))
    side = params.pop('auxiliary_head')
    assert side == 3_265_043 - 3_190_546
    assert sum(params.values()) == PARAMS[block]
    counts = json.loads((golden_dir / 'counts.json').read_text())
    recipes = counts['CrackMamba_table_recipes']
    key = dict(
        VimBlock='vim', VanillaVSSBlock='vanillaVSS', VSSBlock='VSS'
    ).get(block)
    if key:
        assert recipes[key]['params'] == PARAMS[block]
    if block == 'CrackMambaBlock':
        printed = recipes['CrackMamba']['paper'][0]
        assert f'{PARAMS[block] / 1e6:.2f}M' == printed


@pytest.mark.parametrize('block', BLOCKS)
def test_any_input_size(block):
    model = CrackSeUBackbone(channels=(4, 4, 8, 8, 16), blocks=block).eval()
    maps = model(torch.rand(1, 3, 37, 50))
    sizes = [tuple(x.shape[1:]) for x in maps]
    assert sizes == [
        (4, 19, 25),
        (4, 10, 13),
        (8, 5, 7),
        (8, 3, 4),
        (16, 2, 2),
    ]


@pytest.mark.parametrize('size', [(37, 50), (64, 32), (1, 1)])
def test_logits_have_the_images_size(base, size):
    model = build(base).eval()
    meta = dict(img_shape=size, pad_shape=size, ori_shape=size)
    with torch.no_grad():
        logits = model.encode_decode(torch.rand(1, 3, *size), [meta])
    assert logits.shape == (1, 1, *size)


def test_pixels_keep_their_place(base):
    """What exceeds an odd size is cut off, not squeezed in."""
    model = build(base).eval()
    image = torch.rand(1, 3, 63, 64)
    meta = dict(img_shape=(63, 64), ori_shape=(63, 64))
    with torch.no_grad():
        whole = model.decode_head(model.extract_feat(image))
        logits = model.encode_decode(image, [meta])
    assert torch.equal(logits, whole[..., :63, :])


@pytest.mark.parametrize('block', BLOCKS)
def test_every_parameter_gets_a_gradient(base, block):
    model = build(base, blocks=block)
    loss = sum(
        (x * torch.rand_like(x)).sum()
        for x in outputs(model, torch.rand(2, 3, 64, 64))
    )
    loss.backward()
    assert untrained_parameters(model) == []


def test_one_block_per_stage():
    model = CrackSeUBackbone(
        blocks=(
            'conv',
            'conv',
            dict(type='CrackMambaBlock', d_state=4),
            'VimBlock',
        )
    )
    kinds = [type(stage[0]).__name__ for stage in model.stages]
    assert kinds[1:] == [
        'ConvModule',
        'ConvModule',
        'CrackMambaBlock',
        'VimBlock',
    ]
    assert model.stages[3][0].s6.d_state == 4


@pytest.mark.parametrize('block', BLOCKS)
@pytest.mark.parametrize('norm_cfg', NORMS.values())
def test_own_checkpoint_is_loaded(block, norm_cfg):
    model = CrackSeUBackbone(blocks=block, norm_cfg=norm_cfg)
    model.load_state_dict(model.state_dict())


@pytest.mark.parametrize('block', BLOCKS)
def test_checkpoint_of_another_block_or_norm(base, block):
    """What strict=False would leave random is named instead."""
    other = 'conv' if block != 'conv' else 'VimBlock'
    weights = build(base, blocks=block).state_dict()
    with pytest.raises(
        ValueError,
        match=f'has norm LN and blocks {other}; the checkpoint seems to have '
        f'norm LN and blocks {block}',
    ):
        build(base, blocks=other).load_state_dict(weights, strict=False)
    with pytest.raises(ValueError, match='has norm BN .* to have norm LN'):
        build(base, blocks=block, norm_cfg=NORMS['BN']).load_state_dict(
            weights, strict=False
        )


@pytest.mark.parametrize('wrong', ['VimBlock', 'published'])
def test_commands_say_it_too(base, golden, wrong):
    weights = (
        weights_by_rule(golden[1])
        if wrong == 'published'
        else build(base, blocks=wrong).state_dict()
    )
    expected = 'crackseu.py SRC DST' if wrong == 'published' else wrong
    with pytest.raises(UsageError, match=expected):
        check_fits(build(base), {'state_dict': weights}, 'some.pth')


def test_published_checkpoint_wants_the_converter(base, golden):
    weights = weights_by_rule(golden[1])
    with pytest.raises(ValueError, match='model_converters/crackseu.py'):
        build(base).backbone.load_state_dict(weights, strict=False)


def test_converter_command(converter, base, golden, tmp_path, capsys):
    source, target = tmp_path / 'published.pth', tmp_path / 'new' / 'own.pth'
    weights = weights_by_rule(golden[1])
    torch.save({f'module.{k}': v for k, v in weights.items()}, source)
    converter.main([str(source), str(target)])
    name = 'crackseu-bn' if golden[0] == 'BN' else 'crackseu'
    assert f'configs/crackseu/{name}_*.py' in capsys.readouterr().out
    model = build(base, norm_cfg=NORMS[golden[0]])
    model.load_state_dict(torch.load(target, weights_only=True))


def test_converter_refuses_other_files(converter, tmp_path, capsys):
    with pytest.raises(ValueError, match='fusion1.conv1'):
        converter.convert({'layers.0.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match='conv9'):
        converter.convert({'conv9.conv1.weight': torch.zeros(1)})
    with pytest.raises(SystemExit):
        converter.main([str(tmp_path / 'gone.pth'), str(tmp_path / 'x.pth')])
    assert 'does not exist' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(blocks='CrackMambaBlok'), 'expected one of .*CrackMambaBlock'),
        (dict(blocks=dict(type='NoBlock')), 'a registered type'),
        (dict(blocks=('conv', 'conv')), 'stages 2 to 5'),
        (dict(channels=(1, 2)), 'five stages'),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        CrackSeUBackbone(**options)
