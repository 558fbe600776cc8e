"""DAMamba: parity with the released code, and its checkpoints."""

import pytest
import torch

from checks import load_script, max_rel_err
from mmseg_crackssm.models.backbones.damamba import (
    ARCHITECTURES,
    DAMamba,
    resolve_arch,
)


@pytest.fixture(scope='module')
def converter(repo_root):
    path = repo_root / 'tools' / 'model_converters' / 'damamba.py'
    return load_script(path)


@pytest.fixture(scope='module', params=['T', 'S'])
def golden(request, golden_dir):
    path = golden_dir / f'damamba_{request.param}_style.pt'
    return torch.load(path, weights_only=True)


def golden_arch(golden):
    kwargs = golden['kwargs']
    return dict(
        channels=kwargs['dims'],
        depths=kwargs['depths'],
        mlp_ratios=kwargs['mlp_ratios'],
        head_dim=kwargs['head_dim'],
        scaled_stages=[i for i, on in enumerate(kwargs['layerscale']) if on],
    )


def build_golden(golden, converter, **options):
    model = DAMamba(arch=golden_arch(golden), **options)
    model.load_state_dict(converter.convert(golden['state_dict']))
    return model.eval()


@pytest.mark.parametrize(
    ('dtype', 'suffix', 'tolerance'),
    [(torch.float64, 'f64', 1e-9), (torch.float32, 'f32', 2e-5)],
)
def test_outputs_equal_damamba(golden, converter, dtype, suffix, tolerance):
    model = build_golden(golden, converter).to(dtype)
    with torch.no_grad():
        outs = model(golden['input'].to(dtype))
    expected = golden[f'outs_{suffix}']
    assert len(outs) == len(expected) == 4
    for out, target in zip(outs, expected, strict=True):
        assert max_rel_err(out, target) < tolerance


def test_gradients_equal_damamba(golden, converter):
    model = build_golden(golden, converter).double()
    image = golden['input'].double().requires_grad_()
    loss = sum(
        (weight.double() * out).sum()
        for weight, out in zip(
            golden['grad_weights'], model(image), strict=True
        )
    )
    loss.backward()
    # Stored in float32.
    assert max_rel_err(image.grad, golden['grad_input'].double()) < 1e-6
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert len(golden['grad_params']) == 6
    for key, expected in golden['grad_params'].items():
        found = gradients[converter.convert_key(key)].view_as(expected)
        assert max_rel_err(found, expected.double()) < 1e-6, key


def test_intermediates_equal_damamba(golden, converter):
    model = build_golden(golden, converter)
    stored = golden['dassm_intermediates']
    assert set(stored) == {'stage0.block0', 'stage2.block0'}
    found = {}

    def watch(name, block):
        def keep_scan(module, args, kwargs, output):
            found[name] = dict(
                da_in=kwargs['query'],
                da_x=args[0].permute(0, 2, 3, 1),
                offset=module.offsets(kwargs['query']).permute(0, 2, 3, 1),
                da_out=output,
            )

        def keep_mixer(module, args, output):
            found[name]['dassm_out'] = output

        block.mixer.das.register_forward_hook(keep_scan, with_kwargs=True)
        block.mixer.register_forward_hook(keep_mixer)

    for name in stored:
        watch(name, model.stages[int(name[5])][0])
    with torch.no_grad():
        model(golden['input'])
        block = model.stages[0][0](golden['block0_io']['block_in'])
    for name, expected in stored.items():
        assert set(found[name]) == set(expected)
        for what, tensor in expected.items():
            assert max_rel_err(found[name][what], tensor) < 2e-5, (name, what)
    assert max_rel_err(block, golden['block0_io']['block_out']) < 2e-5


def test_offsets_of_all_blocks_equal_damamba(golden, converter):
    model = build_golden(golden, converter)
    found = {}
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage):
            block.mixer.das.offset.register_forward_hook(
                lambda module, args, offset, name=f'stages.{i}.blocks.{j}': (
                    found.update({name: offset})
                )
            )
    with torch.no_grad():
        model(golden['input'])
    assert set(found) == set(golden['offset_std_absmax'])
    for name, expected in golden['offset_std_absmax'].items():
        values = [found[name].std().item(), found[name].abs().max().item()]
        assert values == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('classifier', [True, False])
@pytest.mark.parametrize(
    'wrap',
    [
        lambda weights: weights,
        lambda weights: dict(model=weights, epoch=1),
        lambda weights: dict(
            state_dict={
                **{f'backbone.{k}': v for k, v in weights.items()},
                'decode_head.conv_seg.bias': torch.zeros(1),
            }
        ),
        lambda weights: {f'module.{k}': v for k, v in weights.items()},
    ],
    ids=['bare', 'classifier', 'segmentor', 'parallel'],
)
def test_converter_command(
    golden, converter, tmp_path, capsys, wrap, classifier
):
    source, target = tmp_path / 'released.pth', tmp_path / 'new' / 'own.pth'
    weights = dict(golden['state_dict'])
    if classifier:
        weights['head.fc.weight'] = torch.zeros(1)
    torch.save(wrap(weights), source)
    converter.main([str(source), str(target)])
    assert "type='DAMamba', arch={" in capsys.readouterr().out
    model = DAMamba(
        arch=golden_arch(golden),
        init_cfg=dict(type='Pretrained', checkpoint=str(target)),
    )
    model.init_weights()
    expected = build_golden(golden, converter).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_converter_keeps_the_classifier(golden, converter, tmp_path, capsys):
    source, target = tmp_path / 'released.pth', tmp_path / 'own.pth'
    weights = {**golden['state_dict'], 'head.fc.weight': torch.ones(3, 2)}
    torch.save(dict(model=weights), source)
    converter.main([str(source), str(target), '--classifier'])
    assert 'mmpretrain' in capsys.readouterr().out
    found = torch.load(target, weights_only=True)
    assert torch.equal(found.pop('head.fc.weight'), torch.ones(3, 2))
    expected = converter.convert(golden['state_dict'])
    assert found.keys() == {f'backbone.{key}' for key in expected}
    torch.save(golden['state_dict'], source)
    with pytest.raises(SystemExit):
        converter.main([str(source), str(target), '--classifier'])
    assert 'leave out --classifier' in capsys.readouterr().err


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_converter_recognises_the_presets(converter, arch):
    with torch.device('meta'):
        weights = DAMamba(arch=arch).state_dict()
    assert converter.infer_arch(weights) == resolve_arch(arch)


def test_converter_refuses_other_files(converter, tmp_path, capsys):
    with pytest.raises(ValueError, match='token_mixer.Ds'):
        converter.convert({'layers.0.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match=r'stages\.0\.blocks\.0\.op\.Ds'):
        converter.convert({'stages.0.blocks.0.op.Ds': torch.zeros(1)})
    with pytest.raises(SystemExit):
        converter.main([str(tmp_path / 'gone.pth'), str(tmp_path / 'x.pth')])
    assert 'does not exist' in capsys.readouterr().err


@pytest.mark.parametrize(
    'wrap',
    [
        lambda weights: weights,
        lambda weights: dict(state_dict=weights),
        lambda weights: dict(model=weights, epoch=1),
        lambda weights: {f'backbone.{k}': v for k, v in weights.items()},
        lambda weights: {},
    ],
    ids=['bare', 'state_dict', 'model', 'segmentor', 'empty'],
)
def test_unconverted_checkpoint_is_refused(golden, tmp_path, wrap):
    path = tmp_path / 'raw.pth'
    torch.save(wrap(golden['state_dict']), path)
    model = DAMamba(
        arch=golden_arch(golden),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    with pytest.raises(ValueError, match='model_converters/damamba.py'):
        model.init_weights()
