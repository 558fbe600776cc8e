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


LEAVES = sorted(
    path.stem
    for root in config_roots()[-1:]
    for path in (root / 'crackssm').glob('*.py')
)


def data_roots(cfg):
    """Folders of the data sets for training, and of those for tests."""
    found = []
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        parts = dataset.get('datasets', [dataset])
        found.append([x.data_root for x in parts if 'data_root' in x])
    assert found[1] == found[2]
    return found[:2]


@pytest.mark.parametrize('leaf', LEAVES)
def test_data_sets_move_by_the_keys_of_their_config(leaf):
    """Every data set of every config, and nothing silently stays."""
    cfg = load_config(leaf)
    train, test = data_roots(cfg)
    if not train:
        with pytest.raises(UsageError, match='they have no folder'):
            load_config(leaf, {'data_root': 'x'})
    elif len(train) > 1:
        options = {f'roots.{name}': f'new/{name}' for name in cfg.roots}
        moved = load_config(leaf, options)
        assert data_roots(moved) == [list(options.values())] * 2
        assert dict(moved.val_evaluator[0].sources) == {
            name: f'new/{name}' for name in cfg.roots
        }
        for key in ('data_root', 'roots.Crack501'):
            with pytest.raises(UsageError, match='set roots.Crack500'):
                load_config(leaf, {key: 'x'})
    elif train == test:
        moved = load_config(leaf, {'data_root': 'x'})
        assert data_roots(moved) == [['x'], ['x']]
        with pytest.raises(UsageError, match='set data_root'):
            load_config(leaf, {'test_data_root': 'x'})
    else:
        moved = load_config(leaf, {'data_root': 'x'})
        assert data_roots(moved) == [['x'], test]
        # Exchanged: each is moved once.
        options = {'data_root': test[0], 'test_data_root': train[0]}
        assert data_roots(load_config(leaf, options)) == [test, train]


def test_data_root_of_a_config_of_ones_own(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        "train_dataloader = dict(dataset=dict(data_root='a'))\n"
        "val_dataloader = test_dataloader = dict(dataset=dict(data_root='a'))"
    )
    cfg = load_config(path, {'data_root': 'x'})
    assert data_roots(cfg) == [['x'], ['x']]
    path.write_text(f"data_root = 'b'\n{path.read_text()}")
    with pytest.raises(UsageError, match=r'train_dataloader.dataset.data_roo'):
        load_config(path, {'data_root': 'x'})


def test_checkout_has_configs():
    assert config_roots()
