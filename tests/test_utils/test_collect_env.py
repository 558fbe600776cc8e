from importlib.metadata import PackageNotFoundError

import mmcv
import pytest
import torch

from mmseg_crackssm.ops.selective_scan import BACKENDS, available_backends
from mmseg_crackssm.utils import collect_env
from mmseg_crackssm.version import __version__


def test_names_versions_and_stack():
    env = collect_env.collect_env()
    assert env['mmseg_crackssm'] == __version__
    assert env['torch'] == torch.__version__
    assert env['torch threads'] == str(torch.get_num_threads())
    assert f'mmcv {mmcv.__version__}' in env['Stack']


@pytest.mark.parametrize('installed', (False, True))
def test_version_of_triton(monkeypatch, installed):
    def version(name):
        if installed:
            return f'1.2 of {name}'
        raise PackageNotFoundError

    monkeypatch.setattr(collect_env, 'version', version)
    expected = '1.2 of triton' if installed else 'not installed'
    assert collect_env.collect_env()['Triton'] == expected


def test_every_backend_is_usable_or_explained(monkeypatch):
    monkeypatch.setattr(
        collect_env,
        'unavailable_reason',
        lambda name: 'get it so' if name == 'mamba_ssm' else None,
    )
    env = collect_env.collect_env()
    assert env['Scan backends on cpu'] == ', '.join(available_backends('cpu'))
    assert 'mamba_ssm' in BACKENDS
    assert env["Scan backend 'mamba_ssm' is missing"] == 'get it so'


def test_command_writes_one_line_per_entry(capsys):
    collect_env.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(collect_env.collect_env())
    assert lines[0] == f'mmseg_crackssm: {__version__}'
