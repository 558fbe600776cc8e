"""VMamba's hierarchical encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn as nn
import torch.utils.checkpoint as cp
from mmseg.registry import MODELS
from torch import Tensor

from ..layers.patch_layers import (
    ConvDownsample,
    ConvStem,
    LayerNorm2d,
    PatchifyStem,
    PatchMerging2d,
)
from ..layers.vss_block import BLOCK_STYLES
from .staged import FreezingBackbone, check_stages, look_up_arch


def _arch(
    channels: int, depths: tuple[int, ...], style: str, expand: float
) -> dict[str, Any]:
    return dict(
        channels=channels,
        depths=depths,
        block_style=style,
        expand=expand,
        d_state=16 if style == 'vanilla' else 1,
    )


ARCHITECTURES = dict(
    vanilla_tiny=_arch(96, (2, 2, 9, 2), 'vanilla', 2.0),
    vanilla_small=_arch(96, (2, 2, 27, 2), 'vanilla', 2.0),
    vanilla_base=_arch(128, (2, 2, 27, 2), 'vanilla', 2.0),
    tiny_s2l5=_arch(96, (2, 2, 5, 2), 'v05_noz', 2.0),
    small_s2l15=_arch(96, (2, 2, 15, 2), 'v05_noz', 2.0),
    base_s2l15=_arch(128, (2, 2, 15, 2), 'v05_noz', 2.0),
    tiny_s1l8=_arch(96, (2, 2, 8, 2), 'v05_noz', 1.0),
    small_s1l20=_arch(96, (2, 2, 20, 2), 'v05_noz', 1.0),
    base_s1l20=_arch(128, (2, 2, 20, 2), 'v05_noz', 1.0),
    crackssm=_arch(32, (2, 2, 2, 2), 'vanilla', 2.0),
)
"""Presets: the nine architectures with released ImageNet weights, named as
in VMamba's model table, and CrackSSM's encoder."""

ARCH_KEYS = ('channels', 'depths', 'block_style', 'expand', 'd_state')


def resolve_arch(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """Turn a preset name or a dict into a complete architecture.

    Args:
        arch: A key of :data:`ARCHITECTURES`, or a dict with ``channels``
            (of the first stage, doubled at each next one, or one number per
            stage) and ``depths``, and optionally ``block_style``
            ('vanilla'), ``expand`` (2.0) and ``d_state`` (16).

    Returns:
        A new dict with all of :data:`ARCH_KEYS`; ``channels`` and
        ``depths`` are tuples with one number per stage.

    Raises:
        ValueError: On an unknown name, key or style, a missing key, or
            unequal lengths.
    """
    arch = look_up_arch('VSSBackbone', arch, ARCHITECTURES, ARCH_KEYS)
    resolved = dict(block_style='vanilla', expand=2.0, d_state=16)
    resolved.update(arch)
    depths = tuple(resolved['depths'])
    channels = resolved['channels']
    if isinstance(channels, int):
        channels = tuple(channels * 2**i for i in range(len(depths)))
    if not depths or len(channels) != len(depths):
        raise ValueError(
            'VSSBackbone arch: expected one number of channels per depth, '
            f'got channels {tuple(channels)} and depths {depths}'
        )
    if resolved['block_style'] not in BLOCK_STYLES:
        raise ValueError(
            'VSSBackbone block_style: expected one of '
            f'{tuple(BLOCK_STYLES)}, got {resolved["block_style"]!r}'
        )
    resolved.update(channels=tuple(channels), depths=depths)
    return resolved


@MODELS.register_module()
class VSSBackbone(FreezingBackbone):
    """VMamba: stages of VSS blocks at strides 4, 8, 16 and 32.

    Any input size works; a map of stride s is ⌈H/s⌉ x ⌈W/s⌉. LayerNorm is
    the only normalisation, so there is no ``norm_eval``: freezing a stage
    is all that can be frozen.

    Published ImageNet weights go through
    ``tools/model_converters/vmamba.py`` and are then given as
    ``init_cfg=dict(type='Pretrained', checkpoint=PATH)``. They hold no
    weights for the output norms, which start at the identity.

    Args:
        arch: A preset name or a dict, see :func:`resolve_arch`.
        in_channels: Channels of the image.
        block_style: 'vanilla' or 'v05_noz'; replaces the architecture's. It
            also decides the stem and the downsampling: patches in the
            first, convolutions in the second.
        block: Config of another block for all stages, such as
            ``dict(type='CrackMambaBlock')``. It is built with ``channels``,
            ``drop_path``, ``backend`` and ``scan_dtype`` and keeps the
            shape.
        out_indices: Stages whose output is returned. Stages behind the last
            of them are not built.
        drop_path_rate: Stochastic depth of the architecture's last block;
            it rises linearly from 0 at the first.
        frozen_stages: -1 freezes nothing, 0 the stem, n >= 1 also the first
            n stages with their output norms and the downsampling behind
            them.
        with_cp: Whether to recompute the blocks in the backward pass, which
            saves memory.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.
        init_cfg: mmengine initialisation.

    Raises:
        ValueError: On a bad ``arch``, ``out_indices`` or ``frozen_stages``.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'crackssm',
        in_channels: int = 3,
        block_style: str | None = None,
        block: dict | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        resolved = resolve_arch(arch)
        if block_style is not None:
            resolved = resolve_arch({**resolved, 'block_style': block_style})
        channels, depths = resolved['channels'], resolved['depths']
        check_stages('VSSBackbone', out_indices, frozen_stages, len(depths))
        self.out_indices = tuple(sorted(out_indices))
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

        block = block or dict(
            type='VSSBlock',
            style=resolved['block_style'],
            d_state=resolved['d_state'],
            expand=resolved['expand'],
            # The released models of the later style have none.
            conv_bias=resolved['block_style'] == 'vanilla',
        )
        patches = resolved['block_style'] == 'vanilla'
        stem = PatchifyStem if patches else ConvStem
        downsample = PatchMerging2d if patches else ConvDownsample
        self.patch_embed = stem(in_channels, channels[0])
        last = max(sum(depths) - 1, 1)
        self.stages = nn.ModuleList()
        # What nobody reads would get no gradient, which DDP refuses.
        for i, depth in enumerate(depths[: self.out_indices[-1] + 1]):
            first = sum(depths[:i])
            self.stages.append(
                nn.ModuleList(
                    MODELS.build(
                        dict(
                            block,
                            channels=channels[i],
                            drop_path=drop_path_rate * (first + j) / last,
                            backend=backend,
                            scan_dtype=scan_dtype,
                        )
                    )
                    for j in range(depth)
                )
            )
        self.downsamples = nn.ModuleList(
            downsample(channels[i], channels[i + 1])
            for i in range(self.out_indices[-1])
        )
        for i in self.out_indices:
            self.add_module(f'norm{i}', LayerNorm2d(channels[i]))
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode an image.

        Args:
            x: Image (B, in_channels, H, W).

        Returns:
            One map (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉) per stage of
            ``out_indices``, each through its own LayerNorm.
        """
        x = self.patch_embed(x)
        outs = []
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = self.downsamples[i - 1](x)
            for block in stage:
                if self.with_cp and x.requires_grad:
                    x = cp.checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x))
        return tuple(outs)

    def frozen_modules(self) -> list[nn.Module]:
        """Stem, stages, their output norms and downsampling."""
        frozen = []
        if self.frozen_stages >= 0:
            frozen.append(self.patch_embed)
        for i in range(min(self.frozen_stages, len(self.stages))):
            frozen.append(self.stages[i])
            if i in self.out_indices:
                frozen.append(getattr(self, f'norm{i}'))
            if i < len(self.downsamples):
                frozen.append(self.downsamples[i])
        return frozen

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        # mmengine loads with strict=False: a file of other keys would match
        # nothing, and training would silently start from random weights.
        original = any(
            key.startswith(f'{prefix}layers.') for key in state_dict
        )
        # Inside a larger model, a file may well hold other parts alone.
        foreign = not prefix and not any(
            key.startswith('stages.') for key in state_dict
        )
        if original or foreign:
            raise ValueError(
                "VSSBackbone: expected keys like 'stages.0.0.norm.weight', "
                f'got {list(state_dict)[:3]}. Convert a published VMamba '
                'checkpoint first: python tools/model_converters/vmamba.py '
                "SRC DST. From another model's checkpoint take this encoder "
                'by its prefix, as in init_cfg=dict(type='
                "'Pretrained', checkpoint=PATH, prefix='backbone.encoder.')"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
