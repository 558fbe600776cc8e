"""What backbones of stages share: presets, freezing, telling checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn
from mmengine.model import BaseModule


def look_up_arch(
    owner: str,
    arch: str | Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    keys: Sequence[str],
) -> Mapping[str, Any]:
    """The architecture that an argument names or is.

    Args:
        owner: The backbone, for the messages.
        arch: A key of ``presets``, or a dict.
        presets: Architectures by name.
        keys: Those that a dict may have; 'channels' and 'depths' it must.

    Raises:
        ValueError: On an unknown name or key, or a missing key.
    """
    if isinstance(arch, str):
        if arch not in presets:
            raise ValueError(
                f'{owner} arch: expected one of {tuple(presets)} or a dict, '
                f'got {arch!r}'
            )
        arch = presets[arch]
    unknown = set(arch) - set(keys)
    missing = {'channels', 'depths'} - set(arch)
    if unknown or missing:
        raise ValueError(
            f'{owner} arch: expected the keys {tuple(keys)} of which '
            f"'channels' and 'depths' are required, got {tuple(arch)}"
        )
    return arch


def check_stages(
    owner: str, out_indices: Sequence[int], frozen_stages: int, stages: int
) -> None:
    """Refuse stages that a backbone does not have.

    Args:
        owner: The backbone, for the messages.
        out_indices: Stages whose output is wanted.
        frozen_stages: -1 for none, 0 for the stem, n for n stages.
        stages: Number of stages.

    Raises:
        ValueError: On a bad ``out_indices`` or ``frozen_stages``.
    """
    if not out_indices or not set(out_indices) <= set(range(stages)):
        raise ValueError(
            f'{owner} out_indices: expected stages out of '
            f'{tuple(range(stages))}, got {tuple(out_indices)}'
        )
    if not -1 <= frozen_stages <= stages:
        raise ValueError(
            f'{owner} frozen_stages: expected -1 (none) to {stages}, got '
            f'{frozen_stages}'
        )


class FreezingBackbone(BaseModule):
    """A backbone whose first stages stay as they are.

    Frozen modules get no gradient and remain in evaluation mode.
    """

    def frozen_modules(self) -> list[nn.Module]:
        """What is frozen."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> 'FreezingBackbone':
        """Switch the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        self.freeze()
        return self

    def freeze(self) -> None:
        """Freeze :meth:`frozen_modules`."""
        for module in self.frozen_modules():
            module.eval()
            module.requires_grad_(False)


class ExplainingBackbone(BaseModule):
    """A backbone that refuses the checkpoint of another network.

    mmengine loads with ``strict=False``: what does not match would silently
    stay random.
    """

    def explain_mismatch(self, weights: Mapping[str, Any]) -> str | None:
        """Say what a checkpoint is of, if not of this network.

        Args:
            weights: Its tensors by their names within this module.

        Returns:
            A message with the remedy, None if nothing speaks against it.
        """
        raise NotImplementedError

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        message = self.explain_mismatch(
            {
                key.removeprefix(prefix): value
                for key, value in state_dict.items()
                if key.startswith(prefix)
            }
        )
        if message is not None:
            raise ValueError(message)
        super()._load_from_state_dict(state_dict, prefix, *args)
