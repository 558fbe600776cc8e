from pathlib import Path

import pytest

from mmseg_crackssm.apis import config as config_module
from mmseg_crackssm.apis.config import (
    config_roots,
    default_work_dir,
    find_config,
    load_config,
)
from mmseg_crackssm.apis.errors import UsageError


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    root = tmp_path / 'configs'
    for name in ('_base_/x', 'a/one', 'a/two', 'b/two'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f'{name}.py').write_text("p = dict(q=1, name='x')\n")
    monkeypatch.setattr(config_module, 'config_roots', lambda: [root])
    return root


@pytest.mark.parametrize(
    'name', ['one', 'one.py', 'a/one.py', 'configs/a/one.py', './a/one']
)
def test_shipped_config_is_found(shipped, name):
    assert find_config(name) == shipped / 'a/one.py'


def test_name_with_dots_is_found(shipped):
    (shipped / 'a/v0.5_x.py').write_text('')
    assert find_config('v0.5_x.py') == shipped / 'a/v0.5_x.py'
    assert find_config('v0.5_x') == shipped / 'a/v0.5_x.py'


def test_path_comes_first(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('one').write_text('')
    assert find_config('one') == Path('one')


def test_unclear_and_unknown_names_are_explained(shipped):
    with pytest.raises(UsageError, match='a/two, b/two'):
        find_config('two')
    assert find_config('b/two') == shipped / 'b/two.py'
    with pytest.raises(FileNotFoundError, match='similar: a/one'):
        find_config('onee.py')
    with pytest.raises(FileNotFoundError, match='shipped: a/one'):
        find_config('zzzzzz')
    with pytest.raises(FileNotFoundError):
        find_config('x')  # _base_ is not for running


def test_options_are_merged_into_a_copy(shipped):
    cfg = load_config('one', {'p.q': 2})
    again = load_config(cfg, {'p.q': 3})
    assert (cfg.p.q, again.p.q) == (2, 3)
    assert Path(default_work_dir(cfg)) == Path('work_dirs/one')


def test_checkout_has_configs():
    assert config_roots()
