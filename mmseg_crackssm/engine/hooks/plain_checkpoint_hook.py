from collections import deque
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS

_HISTORY_KEYS = {'log_history', 'count_history', 'max_length'}
_STATE_DICTS = ('state_dict', 'ema_state_dict')


def to_plain(value: Any, name: str = 'checkpoint') -> Any:
    """Turn a value into builtins and tensors, as deep as it goes.

    Args:
        value: Anything found in a checkpoint.
        name: Where it was found, for the log.

    Returns:
        The same content made of what ``torch.load(weights_only=True)``
        reads: ``HistoryBuffer`` becomes a dict of two tensors and its
        length, NumPy arrays become tensors (or lists), NumPy numbers become
        Python's, mappings become dict. What has no plain form becomes None,
        with a line in the log.
    """
    if value is None or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(
            log_history=torch.tensor(log, dtype=torch.float64),
            count_history=torch.tensor(count, dtype=torch.float64),
            max_length=value.max_length,
        )
    if isinstance(value, np.generic):
        return to_plain(value.item(), name)
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(value.copy())
        except TypeError:
            return to_plain(value.tolist(), name)
    if isinstance(value, Mapping):
        return {
            to_plain(key, name): to_plain(item, f'{name}.{key}')
            for key, item in value.items()
        }
    if isinstance(value, tuple):
        return tuple(to_plain(item, name) for item in value)
    if isinstance(value, (list, deque, set, frozenset)):
        return [to_plain(item, name) for item in value]
    # bool before int; subclasses (such as numpy.str_ or enums) are reduced.
    for kind in (bool, int, float, str, bytes):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (torch.dtype, torch.device)):
        return value
    print_log(
        f'{name} is a {type(value).__name__}, which has no plain form: '
        'saved as None',
        logger='current',
    )
    return None


def _to_history(value: Any) -> Any:
    """Undo :func:`to_plain` for a ``HistoryBuffer``."""
    if not isinstance(value, dict) or set(value) != _HISTORY_KEYS:
        return value
    return HistoryBuffer(
        value['log_history'].cpu().numpy(),
        value['count_history'].cpu().numpy(),
        value['max_length'],
    )


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Save checkpoints that ``torch.load(weights_only=True)`` can read.

    mmengine puts ``HistoryBuffer`` and NumPy objects into a checkpoint.
    torch >= 2.6 refuses these, so that official mmengine can neither test
    nor resume from its own checkpoints, and a reader that gives in unpickles
    whatever a downloaded file holds. This hook writes plain builtins and
    tensors instead and restores the log history on resume.
    """

    # After every hook that adds to the checkpoint (EMAHook among them).
    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Make every entry plain, in place."""
        for key, value in checkpoint.items():
            # Already tensors; their order and versions are kept.
            if key not in _STATE_DICTS:
                checkpoint[key] = to_plain(value, key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore what ``Runner.resume`` expects, in place."""
        message_hub = checkpoint.get('message_hub')
        if isinstance(message_hub, dict):
            message_hub['log_scalars'] = {
                name: _to_history(value)
                for name, value in message_hub.get('log_scalars', {}).items()
            }
