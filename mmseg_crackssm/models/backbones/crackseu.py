"""Encoder of CrackSeU, with convolutions or Mamba blocks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.nn as nn
from mmseg.registry import MODELS
from torch import Tensor

from ..layers.conv_norm import ConvModule
from .staged import ExplainingBackbone

BLOCKS = (
    'conv',
    'VimBlock',
    'VanillaVSSBlock',
    'VSSBlock',
    'CrackMambaBlock',
)
"""What stages 2 to 5 may consist of: CrackSeU's own two convolutions, or one
of the blocks that He and Wang compare."""

NORM_CFG = dict(type='LN2d', eps=1e-6)
"""LN_VT, the normalisation of CrackSeU's reference configuration."""
GELU_CFG = dict(type='GELU', approximate='tanh')
HSWISH_CFG = dict(type='HSwish')

NUM_STAGES = 5


def resolve_block(block: str | Mapping[str, Any]) -> dict[str, Any]:
    """The config of a stage's block.

    Args:
        block: One of :data:`BLOCKS`, or a config with any registered type
            that is built with ``channels`` and keeps the shape.

    Raises:
        ValueError: On an unknown name.
    """
    cfg = dict(type=block) if isinstance(block, str) else dict(block)
    name = cfg.get('type')
    known = name in BLOCKS or (
        isinstance(block, Mapping) and MODELS.get(str(name)) is not None
    )
    if not known:
        raise ValueError(
            f'CrackSeUBackbone block: expected one of {BLOCKS}, or a dict '
            f'with a registered type, got {block!r}'
        )
    return cfg


@MODELS.register_module()
class CrackSeUBackbone(ExplainingBackbone):
    """Encoder of CrackSeU: five stages at strides 2 to 32.

    With a Mamba block, a stage is the block and a point-wise convolution to
    the stage's channels (CrackMamba, Section 3.1.2). Any input size works; a
    map of stride s is ⌈H/s⌉ x ⌈W/s⌉.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the five stages.
        blocks: Block of stages 2 to 5, see :func:`resolve_block`, or four of
            them.
        norm_cfg: Normalisation of the convolutions, as in mmcv; None for
            :data:`NORM_CFG`. The other published choice is BN.
        init_cfg: mmengine initialisation.

    Raises:
        ValueError: On an unknown block, or wrong numbers of stages.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        blocks: str | Mapping[str, Any] | Sequence[str | Mapping] = 'conv',
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if isinstance(blocks, (str, Mapping)):
            blocks = [blocks] * (NUM_STAGES - 1)
        if len(channels) != NUM_STAGES or len(blocks) != NUM_STAGES - 1:
            raise ValueError(
                'CrackSeUBackbone: expected channels of five stages and '
                'blocks of stages 2 to 5 (one for all, or four), got '
                f'channels {tuple(channels)} and {len(blocks)} blocks'
            )
        self.blocks = tuple(resolve_block(block) for block in blocks)
        norm_cfg = norm_cfg or NORM_CFG
        self.norm_cfg = norm_cfg
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        first = channels[0]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    _conv(in_channels, first, bias=True, norm_cfg=norm_cfg),
                    nn.MaxPool2d(2, ceil_mode=True),
                    _conv(first, first, act_cfg=GELU_CFG),
                )
            ]
        )
        for i, block in enumerate(self.blocks):
            c_in, c_out = channels[i : i + 2]
            if block['type'] == 'conv':
                stage = nn.Sequential(
                    _conv(c_in, c_in, norm_cfg=norm_cfg),
                    # Stages 4 and 5, which are narrow maps, have hard swish.
                    _conv(
                        c_in, c_out, act_cfg=GELU_CFG if i < 2 else HSWISH_CFG
                    ),
                )
            else:
                stage = nn.Sequential(
                    MODELS.build(dict(block, channels=c_in)),
                    nn.Conv2d(c_in, c_out, kernel_size=1),
                )
            self.stages.append(stage)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode an image.

        Args:
            x: Image (B, in_channels, H, W).

        Returns:
            Five maps (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉) at strides 2 to 32.
        """
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.pool(x))
            outs.append(x)
        return tuple(outs)

    def explain_mismatch(self, weights: Mapping[str, Any]) -> str | None:
        """Say what a checkpoint is of, if not of this network.

        Args:
            weights: Its tensors by their names within this module.

        Returns:
            A message with the remedy, None if nothing speaks against it.
        """
        if any(key.startswith('conv1.conv1.') for key in weights):
            return (
                'CrackSeUBackbone: this is a checkpoint of the published '
                'CrackSeU code. Convert it first: python '
                'tools/model_converters/crackseu.py SRC DST'
            )
        found = describe_keys(weights)
        wanted = describe_keys(self.state_dict())
        if found in (None, wanted):
            return None
        return (
            f'CrackSeUBackbone: this model has {wanted}; the checkpoint '
            f'seems to have {found}. Set norm_cfg and blocks to the '
            "checkpoint's, or take another checkpoint"
        )


def describe_keys(keys: Iterable[str]) -> str | None:
    """Normalisation and blocks that names of parameters tell of.

    Args:
        keys: Names within :class:`CrackSeUBackbone`.

    Returns:
        Such as 'norm LN and blocks conv', None if they tell of none.
    """
    found = set(keys)
    norm = next(
        (n for n in ('ln', 'bn') if f'stages.0.0.{n}.weight' in found), None
    )
    stages = [
        _describe_block([k for k in found if k.startswith(f'stages.{i}.0.')])
        for i in range(1, NUM_STAGES)
    ]
    if norm is None or None in stages:
        return None
    blocks = stages[0] if len(set(stages)) == 1 else ', '.join(stages)
    return f'norm {norm.upper()} and blocks {blocks}'


def _describe_block(keys: Sequence[str]) -> str | None:
    for part, block in (
        ('.mixers.', 'VimBlock'),
        ('.attention_norm.', 'CrackMambaBlock'),
        ('.mlp.', 'VSSBlock'),
        ('.ss2d.', 'VanillaVSSBlock'),
        ('.0.conv.weight', 'conv'),
    ):
        if any(part in key for key in keys):
            return block
    return 'another block' if keys else None


def _conv(
    in_channels: int,
    out_channels: int,
    bias: bool = False,
    norm_cfg: dict | None = None,
    act_cfg: dict | None = None,
) -> ConvModule:
    return ConvModule(
        in_channels,
        out_channels,
        kernel_size=3,
        padding=1,
        bias=bias,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
    )
