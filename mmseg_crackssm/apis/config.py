"""Finding and loading configs."""

import copy
import difflib
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config

import mmseg_crackssm

from ..datasets.crack_dataset import list_names
from .errors import UsageError

#: Top-level settings that are folders of data sets.
ROOT_KEYS = ('data_root', 'test_data_root')

_PACKAGE = Path(mmseg_crackssm.__file__).resolve().parent


def config_roots() -> list[Path]:
    """Folders with shipped configs: the wheel's, then the checkout's."""
    candidates = [_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs']
    return [path for path in candidates if (path / '_base_').is_dir()]


def find_config(name: str | Path) -> Path:
    """Resolve the CONFIG argument of the commands.

    Args:
        name: A path; or else a shipped config, as
            ``crackssm/crackssm_tut-448.py``, with or without ``configs/``
            before, its folder, and ``.py`` behind.

    Returns:
        Path of an existing file.

    Raises:
        FileNotFoundError: If there is none; the message names similar ones.
        UsageError: If several shipped configs have that name.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    wanted = path.as_posix().removesuffix('.py').removeprefix('configs/')
    known: dict[str, Path] = {}
    for root in config_roots():
        for file in sorted(root.rglob('*.py')):
            key = file.relative_to(root).as_posix().removesuffix('.py')
            if not key.startswith('_base_/'):
                known.setdefault(key, file)
    found = [
        key for key in known if key == wanted or key.endswith(f'/{wanted}')
    ]
    if len(found) == 1:
        return known[found[0]]
    if found:
        raise UsageError(
            f'several configs are called {wanted!r}, say which: '
            + ', '.join(found)
        )
    stems = {key.rpartition('/')[2]: key for key in known}
    near = difflib.get_close_matches(
        wanted.rpartition('/')[2], stems, n=3, cutoff=0.5
    )
    hint = (
        'similar: ' + ', '.join(stems[stem] for stem in near)
        if near
        else f'shipped: {list_names(list(known)) or "none"}'
    )
    raise FileNotFoundError(
        f'config {str(name)!r} is neither a file nor a shipped config ({hint})'
    )


def load_config(
    config: str | Path | Config, cfg_options: dict | None = None
) -> Config:
    """Load a config by path or shipped name, or copy a loaded one.

    Args:
        config: See :func:`find_config`.
        cfg_options: Settings to override, by dotted keys. ``data_root`` moves
            all data sets that lie in the config's own ``data_root``, or in
            the one folder that all of them have; ``test_data_root``, where
            the config has it, those for tests; ``roots.NAME`` one of several.

    Raises:
        FileNotFoundError: If there is no such config.
        UsageError: If the config has no such folder to move.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    else:
        cfg = Config.fromfile(str(find_config(config)))
    if cfg_options:
        before = _roots(cfg)
        _check_roots(cfg_options, before, cfg)
        cfg.merge_from_dict(cfg_options)
        after = _roots(cfg)
        moved = {
            root: after[key]
            for key, root in before.items()
            if after.get(key, root) != root
        }
        if moved:
            _move_data(cfg, moved)
            _check_moved(cfg, moved)
    return cfg


def _roots(cfg: Config) -> dict[str, str]:
    """Folders of the data sets, by the keys that set them."""
    roots = {key: cfg[key] for key in ROOT_KEYS if key in cfg}
    several = cfg.get('roots')
    if isinstance(several, dict):
        roots.update((f'roots.{name}', x) for name, x in several.items())
    own = set(_data_roots(cfg).values())
    if not roots and len(own) == 1:
        roots['data_root'] = own.pop()
    return {key: x for key, x in roots.items() if isinstance(x, str)}


def _data_roots(cfg: Config) -> dict[str, str]:
    """``data_root`` of every data set, by its dotted key."""
    found: dict[str, str] = {}

    def visit(value: object, key: str) -> None:
        if isinstance(value, dict):
            if isinstance(value.get('data_root'), str):
                found[f'{key}.data_root'] = value['data_root']
            children: Iterable = value.items()
        elif isinstance(value, (list, tuple)):
            children = enumerate(value)
        else:
            return
        for name, child in children:
            visit(child, f'{key}.{name}')

    for split in ('train', 'val', 'test'):
        visit(cfg.get(f'{split}_dataloader'), f'{split}_dataloader')
    return found


def _check_roots(
    cfg_options: dict, roots: dict[str, str], cfg: Config
) -> None:
    """Refuse to move what the config does not have."""
    wrong = [
        key
        for key in cfg_options
        if (key in ROOT_KEYS or key.startswith('roots.')) and key not in roots
    ]
    if not wrong:
        return
    known = roots or _data_roots(cfg)
    listed = ', '.join(f'{key} (now {root})' for key, root in known.items())
    raise UsageError(
        f'{" and ".join(wrong)} would move none of the data sets of '
        f'{cfg.filename}: '
        + (f'set {listed}' if known else 'they have no folder')
    )


def _check_moved(cfg: Config, moved: dict[str, str]) -> None:
    """Make sure that every folder named is that of a data set now."""
    known = _data_roots(cfg)
    lost = [f'{x!r}' for x in moved.values() if x not in known.values()]
    if lost:
        raise UsageError(
            f'no data set of {cfg.filename} lies in '
            f'{" or ".join(moved)} to be moved to {" or ".join(lost)}; set '
            + ', '.join(f'{key} (now {root})' for key, root in known.items())
        )


def _move_data(value: object, moved: dict[str, str]) -> None:
    """Replace the folders of data sets wherever they stand below.

    A config is evaluated before it is overridden: without this the data sets
    would keep the folder of the config, and evaluators that tell several data
    sets by their folders (``sources``) too.
    """
    if isinstance(value, (dict, Config)):
        for key, child in value.items():
            if key == 'sources' and isinstance(child, dict):
                child.update({k: moved.get(x, x) for k, x in child.items()})
            elif key == 'data_root' and isinstance(child, str):
                value[key] = moved.get(child, child)
            else:
                _move_data(child, moved)
    elif isinstance(value, (list, tuple)):
        for child in value:
            _move_data(child, moved)


def default_work_dir(cfg: Config) -> str:
    """``work_dirs/<name of the config>``, below the current folder."""
    name = Path(cfg.filename).stem if cfg.filename else 'unnamed'
    return str(Path('work_dirs') / name)
