import os
import subprocess
import sys
from pathlib import Path, PosixPath

import pytest
import torch

from checks import load_script
from mmseg_crackssm.models.backbones.vss import (
    ARCHITECTURES,
    VSSBackbone,
    resolve_arch,
)

GOLDEN = ['vmamba_v0', 'vmamba_v05_noz_ratio1', 'vmamba_v05_noz_ratio2']
TOOL = Path(__file__).parents[2] / 'tools' / 'model_converters' / 'vmamba.py'


@pytest.fixture(scope='module')
def converter():
    return load_script(TOOL)


@pytest.fixture(scope='module', params=GOLDEN)
def golden(request, golden_dir):
    return torch.load(golden_dir / f'{request.param}.pt', weights_only=True)


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize('wrapper', [None, 'model', 'state_dict'])
def test_wrappers(converter, golden, wrapper):
    raw = golden['state_dict']
    wrapped = raw if wrapper is None else {wrapper: raw, 'epoch': 3}
    assert equal(converter.convert(wrapped), converter.convert(raw))


def test_old_names(converter, golden):
    values = golden['state_dict'].values()
    legacy = dict(zip(golden['legacy_keys'], values, strict=True))
    assert legacy.keys() != golden['state_dict'].keys()
    assert equal(
        converter.convert(legacy), converter.convert(golden['state_dict'])
    )


def test_prefixes_of_parallel_training_and_segmentors(converter, golden):
    raw = golden['state_dict']
    segmentor = {f'module.backbone.{k}': v for k, v in raw.items()}
    segmentor['module.decode_head.conv_seg.weight'] = torch.zeros(1)
    assert equal(converter.convert(segmentor), converter.convert(raw))


def test_linear_weights_stored_as_convolutions(converter, golden):
    names = ('in_proj.weight', 'out_proj.weight', 'fc1.weight', 'fc2.weight')
    raw = golden['state_dict']
    stored = {
        key: value[..., None, None] if key.endswith(names) else value
        for key, value in raw.items()
    }
    assert equal(converter.convert(stored), converter.convert(raw))


def test_classifier_is_dropped(converter, golden):
    raw = golden['state_dict']
    extra = (
        'classifier.norm.weight',
        'classifier.head.bias',
        'norm.weight',
        'head.weight',
    )
    whole = {**raw, **{key: torch.zeros(1) for key in extra}}
    assert equal(converter.convert(whole), converter.convert(raw))


def test_nothing_is_lost_or_changed_in_place(converter, golden):
    raw = dict(golden['state_dict'])
    keys = list(raw)
    converted = converter.convert(raw)
    assert list(raw) == keys
    assert len(converted) == len(raw)
    assert sum(v.numel() for v in converted.values()) == sum(
        v.numel() for v in raw.values()
    )


@pytest.mark.parametrize(
    'weights',
    [
        {},
        {'conv1.weight': torch.zeros(1), 'head.bias': torch.zeros(1)},
        {'layers.0.blocks.0.attn.qkv.weight': torch.zeros(1)},
        {'classifier.head.bias': torch.zeros(1)},
    ],
)
def test_other_checkpoints_are_refused(converter, weights):
    with pytest.raises(ValueError, match='expected a VMamba checkpoint'):
        converter.convert(weights)


def test_one_foreign_key_is_named(converter, golden):
    weights = {**golden['state_dict'], 'neck.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match=r'neck\.weight'):
        converter.convert(weights)


@pytest.mark.parametrize('name', list(ARCHITECTURES))
def test_architecture_is_recognised(converter, name):
    with torch.device('meta'):
        weights = VSSBackbone(arch=name).state_dict()
    assert converter.infer_arch(weights) == resolve_arch(name)


def test_command(converter, tmp_path, golden_dir):
    golden = torch.load(golden_dir / 'vmamba_v0.pt', weights_only=True)
    source, target = tmp_path / 'raw.pth', tmp_path / 'new' / 'ours.pth'
    torch.save({'model': golden['state_dict']}, source)
    # Runs in a checkout that is not installed, too.
    paths = [str(TOOL.parents[2]), os.environ.get('PYTHONPATH', '')]
    done = subprocess.run(
        [sys.executable, str(TOOL), str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    assert "'block_style': 'vanilla'" in done.stdout
    assert equal(
        torch.load(target, weights_only=True),
        converter.convert(golden['state_dict']),
    )


def test_command_refuses_without_a_traceback(converter, tmp_path, capsys):
    with pytest.raises(SystemExit):
        converter.main([str(tmp_path / 'absent.pth'), str(tmp_path / 'new')])
    assert 'absent.pth' in capsys.readouterr().err
    assert not (tmp_path / 'new').exists()


def test_command_loads_weights_only_unless_told(
    converter, tmp_path, golden_dir, capsys
):
    golden = torch.load(golden_dir / 'vmamba_v0.pt', weights_only=True)
    source, target = tmp_path / 'raw.pth', tmp_path / 'ours.pth'
    model = golden['state_dict']
    torch.save({'model': model, 'config': PosixPath('config')}, source)
    with pytest.raises(SystemExit):
        converter.main([str(source), str(target)])
    assert '--unsafe-load' in capsys.readouterr().err
    assert not target.exists()
    converter.main([str(source), str(target), '--unsafe-load'])
    assert len(torch.load(target, weights_only=True)) == len(model)
