"""Checkpoints that cannot run code."""

import os
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from .errors import UsageError

_FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
_FORCE_NOT = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


@contextmanager
def restricted_unpickling(unsafe: bool = False) -> Iterator[None]:
    """Make every ``torch.load`` inside load weights only.

    That holds for code we do not own: OneDL's mmengine otherwise falls back
    to unrestricted unpickling with a warning, and torch < 2.6 unpickles by
    default.

    Args:
        unsafe: Allow everything instead; the user has vouched for the file.
    """
    saved = {key: os.environ.get(key) for key in (_FORCE, _FORCE_NOT)}
    os.environ.pop(_FORCE_NOT if not unsafe else _FORCE, None)
    os.environ[_FORCE_NOT if unsafe else _FORCE] = '1'
    try:
        yield
    finally:
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def load_weights(path: str | Path, *, unsafe: bool = False) -> dict:
    """Read a checkpoint file on CPU.

    Args:
        path: Local file.
        unsafe: Unpickle whatever it holds, which may run code.

    Returns:
        The checkpoint: a dict, with the weights under ``state_dict`` or at
        the top.

    Raises:
        FileNotFoundError: If there is no such file.
        UsageError: If it is no checkpoint, or one that is more than weights.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint {str(path)!r} does not exist: give the path of a '
            '.pth file, such as those that training leaves in work_dirs/'
        )
    try:
        with restricted_unpickling(unsafe):
            checkpoint = torch.load(
                path, map_location='cpu', weights_only=not unsafe
            )
    except pickle.UnpicklingError as error:
        names = re.findall(r'GLOBAL ([\w.]+)', str(error))
        if not names:
            raise UsageError(_not_a_checkpoint(path)) from error
        raise UsageError(
            f'checkpoint {str(path)!r} holds more than weights '
            f'({", ".join(sorted(set(names)))}), and loading it could run '
            'code. If you trust its source, add --unsafe-load'
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise UsageError(_not_a_checkpoint(path)) from error
    if not isinstance(checkpoint, dict):
        raise UsageError(
            f'checkpoint {str(path)!r} holds a {type(checkpoint).__name__}, '
            'expected a dict with the key state_dict'
        )
    return checkpoint


def _not_a_checkpoint(path: Path) -> str:
    return (
        f'{str(path)!r} is not a checkpoint of torch, or is damaged: give a '
        'complete .pth file'
    )


def is_url(path: str | Path) -> bool:
    """Whether mmengine would download it (``https://``, ``torchvision://``).

    Downloads are restricted by :func:`restricted_unpickling` alone.
    """
    return '://' in str(path)


def check_fits(
    model: nn.Module, checkpoint: Mapping, path: str | Path
) -> None:
    """Make sure that a checkpoint fills the whole model.

    mmengine logs what is missing and goes on with random weights.

    Args:
        model: The model; a wrapper's ``module.`` is ignored.
        checkpoint: What :func:`load_weights` returned.
        path: For the message.

    Raises:
        UsageError: If parameters or buffers are missing or have another
            shape. More than the model needs is fine.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    found = {
        str(name).removeprefix('module.'): value
        for name, value in weights.items()
        if isinstance(value, torch.Tensor)
    }
    expected = {
        name.removeprefix('module.'): value
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    wrong = [
        f'{name} {tuple(value.shape)} (the checkpoint has '
        + (f'{tuple(found[name].shape)})' if name in found else 'none)')
        for name, value in expected.items()
        if name not in found or found[name].shape != value.shape
    ]
    if wrong:
        reason = _explain(model, found)
        meta = checkpoint.get('meta')
        name = meta.get('experiment_name') if isinstance(meta, dict) else None
        origin = f' (trained as {name!r})' if name else ''
        raise UsageError(
            f'checkpoint {str(path)!r}{origin} does not fit the config: '
            f'{len(wrong)} of {len(expected)} tensors of the model are '
            f'missing or differ, first {"; ".join(wrong[:3])}. '
            + (reason or 'Use the config that it was trained with')
        )


def _explain(model: nn.Module, weights: Mapping) -> str | None:
    """What a part of the model knows of why the weights do not fit."""
    for name, module in model.named_modules():
        explain = getattr(module, 'explain_mismatch', None)
        # A bare checkpoint may be of that part alone.
        for prefix in (f'{name.removeprefix("module.")}.', ''):
            reason = explain and explain(
                {
                    key.removeprefix(prefix): value
                    for key, value in weights.items()
                    if key.startswith(prefix)
                }
            )
            if reason:
                return reason
    return None
