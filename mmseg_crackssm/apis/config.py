"""Finding and loading configs."""

import copy
import difflib
from pathlib import Path

from mmengine.config import Config

import mmseg_crackssm

from ..datasets.crack_dataset import list_names
from .errors import UsageError

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
        cfg_options: Settings to override, by dotted keys. ``data_root``
            alone moves all data sets whose folder the config's own
            ``data_root`` gives.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    else:
        cfg = Config.fromfile(str(find_config(config)))
    if cfg_options:
        before = cfg.get('data_root')
        cfg.merge_from_dict(cfg_options)
        if before is not None and 'data_root' in cfg_options:
            for name in ('train', 'val', 'test'):
                loader = cfg.get(f'{name}_dataloader')
                _move_data(loader, before, cfg_options['data_root'])
    return cfg


def _move_data(value: object, before: str, after: str) -> None:
    """Replace a ``data_root`` wherever it stands below.

    A config is evaluated before it is overridden: without this the data sets
    would keep the folder of the config.
    """
    if isinstance(value, dict):
        if value.get('data_root') == before:
            value['data_root'] = after
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _move_data(item, before, after)


def default_work_dir(cfg: Config) -> str:
    """``work_dirs/<name of the config>``, below the current folder."""
    name = Path(cfg.filename).stem if cfg.filename else 'unnamed'
    return str(Path('work_dirs') / name)
