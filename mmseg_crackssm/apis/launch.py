"""What a run needs before mmengine's Runner is built."""

import argparse
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable

import torch.distributed as dist
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from .errors import UsageError


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that training and testing share."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings to override, as key=value with dotted keys; lists as '
        'key="[a,b]", without white space',
    )
    parser.add_argument('--seed', type=int, help='seed of all randomness')
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load checkpoints that hold more than weights, which may run '
        'code: only for files whose source you trust',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher; see tools/dist_train.sh',
    )
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )


def set_seed(cfg: Config, seed: int | None) -> None:
    """Override the seed of the config, if one is given."""
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)


def prepare_launch(cfg: Config, launcher: str, local_rank: int = 0) -> None:
    """Set up distributed work, on CPU too.

    mmengine can only start NCCL on CUDA devices. Without an accelerator the
    gloo group is started here, the model wrapper is told that there is no
    device, and SyncBN, which exists on GPU alone, becomes BN.

    Args:
        cfg: The config, changed in place.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        local_rank: Used where the environment has no ``LOCAL_RANK``.

    Raises:
        UsageError: If the launcher's environment is missing, or it is not
            ``'pytorch'`` on CPU.
    """
    cfg.launcher = launcher
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UsageError(
            '--launcher pytorch needs torchrun: use tools/dist_train.sh or '
            'tools/dist_test.sh'
        )
    if get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise UsageError(
            f'--launcher {launcher} needs a GPU: on CPU use '
            'tools/dist_train.sh, which starts --launcher pytorch'
        )
    _replace_sync_bn(cfg.model)
    cfg.pop('sync_bn', None)
    wrapper = dict(cfg.get('model_wrapper_cfg') or {})
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    if wrapper['type'] == 'MMDistributedDataParallel':
        wrapper['device_ids'] = None
        wrapper.setdefault('broadcast_buffers', False)
        wrapper.setdefault(
            'find_unused_parameters', cfg.get('find_unused_parameters', False)
        )
    cfg.model_wrapper_cfg = wrapper
    if not dist.is_initialized():
        dist.init_process_group('gloo')


def end_launch(code: int) -> None:
    """Leave the process group, if there is one.

    Where it is a gloo group, this ends the process. The group's threads run
    until the last reference to it is gone. Threads that outlive the
    interpreter abort the process (``terminate called without an active
    exception``), and freeing the group may wait forever, because
    DistributedDataParallel frees it without releasing the lock that one of
    those threads may want (PyTorch issues #190489 and #56297). So nothing is
    freed: output is flushed, child processes are stopped, and the process
    exits.

    Args:
        code: Exit code of the command.
    """
    if not dist.is_available() or not dist.is_initialized():
        return
    if dist.get_backend() != 'gloo':
        dist.destroy_process_group()
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(code)


def _replace_sync_bn(node: object) -> None:
    """SyncBN -> BN in every ``type`` of a config, in place."""
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for item in node:
        _replace_sync_bn(item)


def enable_amp(cfg: Config) -> None:
    """Switch the optimiser wrapper to mixed precision.

    On a GPU that is mmengine's ``AmpOptimWrapper`` (float16 with dynamic
    loss scale), on CPU bfloat16 without scale. A config that asks for
    bfloat16 by itself keeps it.

    Raises:
        UsageError: If the config has another kind of wrapper.
    """
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind == 'BFloat16OptimWrapper':
        return
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(
            f'--amp works with optim_wrapper.type OptimWrapper, got {kind}'
        )
    if get_device() == 'cpu':
        wrapper.type = 'BFloat16OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            wrapper.pop(key, None)
    elif kind != 'AmpOptimWrapper':
        wrapper.type = 'AmpOptimWrapper'
        wrapper.loss_scale = 'dynamic'


def check_data(cfg: Config, loaders: Iterable[str]) -> None:
    """Build the data sets once, before anything else is started.

    Whatever they find missing or wrong ends the run here, with their message
    alone, rather than after the Runner has logged its environment and config.

    Args:
        cfg: The config.
        loaders: Keys such as ``'train_dataloader'``; absent ones are
            skipped.

    Raises:
        FileNotFoundError: From a data set whose files are missing.
        UsageError: From one whose files or arguments do not fit together.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    for key in loaders:
        dataset = (cfg.get(key) or {}).get('dataset')
        if not isinstance(dataset, ConfigDict):
            continue
        try:
            DATASETS.build(dataset)
        except ValueError as error:
            raise UsageError(f'{key}: {error}') from error
