import subprocess
import sys

import pytest

from mmseg_crackssm.utils import stack


@pytest.mark.parametrize('hidden', [['mmcv'], ['mmseg', 'mmengine', 'mmcv']])
def test_import_without_a_stack_says_what_to_install(hidden):
    # A module that is None in sys.modules is one that cannot be found.
    code = (
        'import sys\n'
        f'sys.modules.update(dict.fromkeys({hidden!r}))\n'
        'import mmseg_crackssm'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f'ImportError: mmseg_crackssm needs {", ".join(hidden)}: run '
        'pip install "mmseg_crackssm[onedl]" (recommended) or '
        'pip install --no-build-isolation "mmseg_crackssm[openmmlab]"'
    )


def test_folder_of_an_uninstalled_package_counts_as_missing(
    tmp_path, monkeypatch
):
    (tmp_path / 'mmleftover' / 'ops').mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(stack, 'STACKS', {'onedl': {'mmleftover': 'x'}})
    assert stack.missing_modules() == ['mmleftover']


def test_one_stack_is_installed_here():
    (versions,) = stack.installed_distributions().values()
    assert len(versions) == 3


def test_two_stacks_warn(monkeypatch):
    monkeypatch.setattr(stack, '_version', lambda distribution: '1.0')
    with pytest.warns(UserWarning, match='onedl-mmcv 1.0.*; .*mmcv 1.0'):
        stack.check_stack()


def test_one_stack_is_silent(recwarn):
    stack.check_stack()
    assert not recwarn.list
