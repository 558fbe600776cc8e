"""Training: ``python -m mmseg_crackssm.apis.train CONFIG``."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint
from mmseg.registry import RUNNERS

from .checkpoint import is_url, load_weights, restricted_unpickling
from .config import default_work_dir, load_config
from .errors import UsageError, check_output_folder, run_cli
from .launch import (
    add_common_arguments,
    check_data,
    enable_amp,
    end_launch,
    prepare_launch,
    set_seed,
)


def train_model(
    config: str | Path | Config,
    *,
    work_dir: str | None = None,
    resume: bool = False,
    amp: bool = False,
    seed: int | None = None,
    cfg_options: dict | None = None,
    unsafe_load: bool = False,
    launcher: str = 'none',
    local_rank: int = 0,
) -> Runner:
    """Train what a config describes.

    Args:
        config: Path, name of a shipped config, or config.
        work_dir: Where logs and checkpoints go; by default the config's, or
            ``work_dirs/<name of the config>``.
        resume: Continue from the latest checkpoint in ``work_dir``; from
            the config's ``load_from`` if there is none, or if
            ``cfg_options`` names it.
        amp: Mixed precision.
        seed: Overrides the config's.
        cfg_options: Settings to override, by dotted keys.
        unsafe_load: Load checkpoints that hold more than weights.
        launcher: ``'none'`` or the job launcher that started this process.
        local_rank: Rank on this machine, unless ``LOCAL_RANK`` says it.

    Returns:
        The runner, after training.

    Raises:
        FileNotFoundError: If config, data or checkpoint is missing.
        UsageError: If the config, the checkpoint, the data or the work dir
            cannot be used.
    """
    cfg = load_config(config, cfg_options)
    if cfg.get('train_dataloader') is None:
        raise UsageError(
            f'{cfg.filename} has no train_dataloader: give a leaf config, '
            'not one of _base_'
        )
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = default_work_dir(cfg)
    check_output_folder(cfg.work_dir, '--work-dir')
    set_seed(cfg, seed)
    if amp:
        enable_amp(cfg)
    cfg.resume = resume or cfg.get('resume', False)
    _add_plain_checkpoint_hook(cfg)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    start = cfg.get('load_from')
    if cfg.resume and (cfg_options or {}).get('load_from') is None:
        latest = _latest_checkpoint(cfg.work_dir)
        if latest is not None:
            # mmengine would resume from load_from, where it once started.
            cfg.load_from, start = None, latest
    if start is not None and not is_url(start):
        load_weights(start, unsafe=unsafe_load)
    prepare_launch(cfg, launcher, local_rank)
    with restricted_unpickling(unsafe_load):
        if 'runner_type' in cfg:
            runner = RUNNERS.build(cfg)
        else:
            runner = Runner.from_cfg(cfg)
        runner.train()
    return runner


def _latest_checkpoint(work_dir: str) -> str | None:
    """What a resume will load, None if there is nothing yet."""
    if not (Path(work_dir) / 'last_checkpoint').is_file():
        return None
    return find_latest_checkpoint(work_dir)


def _add_plain_checkpoint_hook(cfg: Config) -> None:
    """Let configs that lack the hook resume from their own checkpoints."""
    custom = list(cfg.get('custom_hooks') or [])
    hooks = [*custom, *(cfg.get('default_hooks') or {}).values()]
    name = 'PlainCheckpointHook'
    if not any(hook and hook.get('type') == name for hook in hooks):
        cfg.custom_hooks = [*custom, dict(type=name)]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of training."""
    parser = argparse.ArgumentParser(description='Train a segmentor')
    parser.add_argument(
        'config', help='config file, or name of a shipped config'
    )
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    parser.add_argument(
        '--resume',
        action='store_true',
        help='continue from the latest checkpoint in the work dir',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision: float16 on GPU, bfloat16 on CPU',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    arguments = vars(parse_args(argv))
    code = run_cli(partial(_train, arguments))
    end_launch(code)
    return code


def _train(arguments: dict) -> None:
    train_model(arguments.pop('config'), **arguments)


if __name__ == '__main__':
    sys.exit(main())
