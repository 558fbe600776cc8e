"""Testing: ``python -m mmseg_crackssm.apis.test CONFIG CHECKPOINT``."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from .checkpoint import (
    check_fits,
    is_url,
    load_weights,
    restricted_unpickling,
)
from .config import default_work_dir, load_config
from .errors import UsageError, check_output_folder, run_cli
from .launch import (
    add_common_arguments,
    check_data,
    end_launch,
    prepare_launch,
    set_seed,
)
from .tta import switch_on_tta


def test_model(
    config: str | Path | Config,
    checkpoint: str | Path,
    *,
    work_dir: str | None = None,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    seed: int | None = None,
    cfg_options: dict | None = None,
    unsafe_load: bool = False,
    launcher: str = 'none',
    local_rank: int = 0,
) -> dict[str, float]:
    """Test a checkpoint on the test split of a config.

    Args:
        config: Path, name of a shipped config, or config.
        checkpoint: Local file, or a URL that mmengine can load.
        work_dir: Where logs and metrics (JSON) go; by default the config's,
            or ``work_dirs/<name of the config>``.
        out: Folder for the predicted masks and probability maps.
        show: Open a window for each image.
        show_dir: Folder for overlays of prediction and ground truth.
        wait_time: Seconds that each window stays.
        tta: Test-time augmentation; see
            :func:`~mmseg_crackssm.apis.tta.switch_on_tta`.
        seed: Overrides the config's.
        cfg_options: Settings to override, by dotted keys.
        unsafe_load: Load a checkpoint that holds more than weights.
        launcher: ``'none'`` or the job launcher that started this process.
        local_rank: Rank on this machine, unless ``LOCAL_RANK`` says it.

    Returns:
        The metrics by name.

    Raises:
        FileNotFoundError: If config, data or checkpoint is missing.
        UsageError: If the config, the checkpoint, the data or a folder of
            the outputs cannot be used.
    """
    cfg = load_config(config, cfg_options)
    if cfg.get('test_dataloader') is None:
        raise UsageError(
            f'{cfg.filename} has no test_dataloader: give a leaf config, not '
            'one of _base_'
        )
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = default_work_dir(cfg)
    for folder, option in (
        (cfg.work_dir, '--work-dir'),
        (out, '--out'),
        (show_dir, '--show-dir'),
    ):
        if folder:
            check_output_folder(folder, option)
    set_seed(cfg, seed)
    cfg.load_from = str(checkpoint)
    cfg.resume = False
    if show or show_dir or out:
        _switch_on_drawing(cfg, show, show_dir, wait_time, out)
    if tta:
        switch_on_tta(cfg)
    weights = None
    if not is_url(checkpoint):
        weights = load_weights(checkpoint, unsafe=unsafe_load)
    check_data(cfg, ('test_dataloader',))
    prepare_launch(cfg, launcher, local_rank)
    with restricted_unpickling(unsafe_load):
        if 'runner_type' in cfg:
            runner = RUNNERS.build(cfg)
        else:
            runner = Runner.from_cfg(cfg)
        if weights is not None:
            check_fits(runner.model, weights, checkpoint)
        return runner.test()


def _switch_on_drawing(
    cfg: Config,
    show: bool,
    show_dir: str | None,
    wait_time: float,
    out: str | None,
) -> None:
    """Make our visualisation hook draw, in place of the config's."""
    hooks = cfg.setdefault('default_hooks', {})
    hooks['visualization'] = dict(
        type='CrackVisualizationHook',
        draw=bool(show or show_dir),
        show=show,
        wait_time=wait_time,
        overlay_dir=show_dir,
        out_dir=out,
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of testing."""
    parser = argparse.ArgumentParser(description='Test a segmentor')
    parser.add_argument(
        'config', help='config file, or name of a shipped config'
    )
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder of logs and metrics')
    parser.add_argument(
        '--out', help='folder for predicted masks and probability maps'
    )
    parser.add_argument(
        '--show', action='store_true', help='open a window for each image'
    )
    parser.add_argument(
        '--show-dir',
        help='folder for overlays: hits green, false alarms orange-red, '
        'missed pixels blue',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2.0,
        help='seconds that each window stays',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="test-time augmentation: mirrored images, or the config's "
        'tta_pipeline',
    )
    add_common_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    arguments = vars(parse_args(argv))
    code = run_cli(partial(_test, arguments))
    end_launch(code)
    return code


def _test(arguments: dict) -> None:
    config, checkpoint = arguments.pop('config'), arguments.pop('checkpoint')
    test_model(config, checkpoint, **arguments)


if __name__ == '__main__':
    sys.exit(main())
