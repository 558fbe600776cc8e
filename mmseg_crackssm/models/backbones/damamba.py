"""DAMamba: a hierarchical encoder with dynamic adaptive scan."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn as nn
import torch.utils.checkpoint as cp
from mmcv.cnn import build_norm_layer
from mmseg.registry import MODELS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers.conv_norm import ConvNorm
from ..layers.damamba_block import DAMambaBlock, init_convs
from ..layers.das import name_scans
from ..layers.patch_layers import LayerNorm2d
from .staged import (
    ExplainingBackbone,
    FreezingBackbone,
    check_stages,
    look_up_arch,
)

ARCHITECTURES = dict(
    tiny=dict(
        channels=(80, 160, 320, 512),
        depths=(3, 4, 12, 5),
        mlp_ratios=(4, 4, 3, 3),
        head_dim=16,
        scaled_stages=(),
    ),
    small=dict(
        channels=(96, 192, 384, 512),
        depths=(4, 8, 20, 6),
        mlp_ratios=(4, 4, 3, 3),
        head_dim=16,
        scaled_stages=(2, 3),
    ),
    base=dict(
        channels=(112, 224, 448, 640),
        depths=(4, 8, 25, 8),
        mlp_ratios=(4, 4, 3, 4),
        head_dim=16,
        scaled_stages=(2, 3),
    ),
)
"""The three models with released weights."""

BLOCK_PART = re.compile(r'stages\.(\d+)\.(\d+)\.(mixer|scale1)\.')

ARCH_KEYS = tuple(ARCHITECTURES['tiny'])


def resolve_arch(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """Turn a preset name or a dict into a complete architecture.

    Args:
        arch: A key of :data:`ARCHITECTURES`, or a dict with ``channels`` and
            ``depths``, one number per stage, and optionally ``mlp_ratios``
            (4 in each stage), ``head_dim`` (16) and ``scaled_stages``, those
            with layer scale (none).

    Returns:
        A new dict with all of :data:`ARCH_KEYS`; but for ``head_dim``, each
        is a tuple.

    Raises:
        ValueError: On an unknown name or key, a missing key, unequal lengths,
            or a stage whose channels ``head_dim`` does not divide.
    """
    arch = look_up_arch('DAMamba', arch, ARCHITECTURES, ARCH_KEYS)
    depths = tuple(arch['depths'])
    resolved = dict(
        channels=tuple(arch['channels']),
        depths=depths,
        mlp_ratios=tuple(arch.get('mlp_ratios', (4,) * len(depths))),
        head_dim=arch.get('head_dim', 16),
        scaled_stages=tuple(arch.get('scaled_stages', ())),
    )
    lengths = {len(resolved[k]) for k in ('channels', 'depths', 'mlp_ratios')}
    stages = range(len(depths))
    if (
        not depths
        or len(lengths) > 1
        or not set(resolved['scaled_stages']) <= set(stages)
    ):
        raise ValueError(
            'DAMamba arch: expected one number of channels and one MLP ratio '
            f'per depth, and scaled_stages out of {tuple(stages)}, got '
            f'{resolved}'
        )
    head_dim = resolved['head_dim']
    for i, channels in enumerate(resolved['channels']):
        if head_dim < 1 or channels % head_dim:
            raise ValueError(
                'DAMamba arch: expected channels that are multiples of '
                f'head_dim, got {channels} channels in stage {i} and '
                f'head_dim {head_dim}'
            )
    return resolved


@MODELS.register_module()
class DAMamba(ExplainingBackbone, FreezingBackbone):
    """DAMamba (arXiv:2502.12627): DAMamba blocks at strides 4, 8, 16, 32.

    Any input size works; a map of stride s is ⌈H/s⌉ x ⌈W/s⌉. What leaves a
    stage has passed its LayerNorm, and goes on so to the next.

    The released ImageNet weights go through
    ``tools/model_converters/damamba.py`` and are then given as
    ``init_cfg=dict(type='Pretrained', checkpoint=PATH)``.

    Args:
        arch: A preset name or a dict, see :func:`resolve_arch`.
        in_channels: Channels of the image.
        out_indices: Stages whose output is returned. Stages behind the last
            of them are not built.
        drop_path_rate: Stochastic depth of the architecture's last block;
            it rises linearly from 0 at the first.
        layer_scale: Initial value of the layer scale in the architecture's
            ``scaled_stages``; None for no layer scale in any.
        frozen_stages: -1 freezes nothing, 0 the stem, n >= 1 also the first
            n stages with their norms and the downsampling behind them.
        with_cp: Whether to recompute the blocks in the backward pass, which
            saves memory. The running statistics of BN count a batch once all
            the same.
        norm_cfg: Normalisation of the stem, the downsampling and the
            ConvFFNs, as in mmcv; None for BN.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.
        init_cfg: mmengine initialisation.

    Raises:
        ValueError: On a bad ``arch``, ``out_indices`` or ``frozen_stages``.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'tiny',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale: float | None = 1e-6,
        frozen_stages: int = -1,
        with_cp: bool = False,
        norm_cfg: dict | None = None,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        arch = resolve_arch(arch)
        channels, depths = arch['channels'], arch['depths']
        check_stages('DAMamba', out_indices, frozen_stages, len(depths))
        self.out_indices = tuple(sorted(out_indices))
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        norm_cfg = norm_cfg or dict(type='BN')

        half, first = channels[0] // 2, channels[0]
        self.stem = nn.Sequential(
            _conv_norm(in_channels, half, stride=2, norm_cfg=norm_cfg),
            nn.GELU(),
            _conv_norm(half, half, stride=1, norm_cfg=norm_cfg),
            nn.GELU(),
            _conv_norm(half, first, stride=2, norm_cfg=norm_cfg),
            nn.GELU(),
            _conv_norm(first, first, stride=1, norm_cfg=norm_cfg),
        )
        # What nobody reads would get no gradient, which DDP refuses.
        built = self.out_indices[-1] + 1
        last = max(sum(depths) - 1, 1)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                DAMambaBlock(
                    channels[i],
                    head_dim=arch['head_dim'],
                    mlp_ratio=arch['mlp_ratios'][i],
                    norm_cfg=norm_cfg,
                    layer_scale=(
                        layer_scale if i in arch['scaled_stages'] else None
                    ),
                    drop_path=drop_path_rate * (sum(depths[:i]) + j) / last,
                    backend=backend,
                    scan_dtype=scan_dtype,
                )
                for j in range(depths[i])
            )
            for i in range(built)
        )
        self.norms = nn.ModuleList(
            LayerNorm2d(channels[i], eps=1e-6) for i in range(built)
        )
        self.downsamples = nn.ModuleList(
            _conv_norm(channels[i], channels[i + 1], 2, norm_cfg=norm_cfg)
            for i in range(built - 1)
        )
        # The blocks have seen to theirs.
        init_convs(self.stem)
        init_convs(self.downsamples)
        name_scans(self)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode an image.

        Args:
            x: Image (B, in_channels, H, W).

        Returns:
            One map (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉) per stage of ``out_indices``.

        Raises:
            ValueError: If offsets are not finite, see
                :class:`~mmseg_crackssm.models.layers.DynamicAdaptiveScan`.
        """
        if x.device.type == 'cpu':
            # The layout in which LayerNorm leaves its maps: adding maps of
            # two layouts is slow.
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = self.downsamples[i - 1](x)
            for block in stage:
                x = self._run(block, x)
            x = self.norms[i](x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if not (self.with_cp and x.requires_grad):
            return block(x)
        return cp.checkpoint(
            block,
            x,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _statistics_kept(block)),
        )

    def frozen_modules(self) -> list[nn.Module]:
        """Stem, stages, their norms and downsampling."""
        frozen = [self.stem] if self.frozen_stages >= 0 else []
        for i in range(min(self.frozen_stages, len(self.stages))):
            frozen += [
                self.stages[i],
                self.norms[i],
                *self.downsamples[i : i + 1],
            ]
        return frozen

    def explain_mismatch(self, weights: Mapping[str, Any]) -> str | None:
        """Say what a checkpoint is of, if not of this network.

        Args:
            weights: Its tensors by their names within this module.

        Returns:
            A message with the remedy, None if nothing speaks against it.
        """
        if any('.token_mixer.' in key for key in weights):
            return (
                'DAMamba: this is a checkpoint of the released DAMamba code. '
                'Convert it first: python tools/model_converters/damamba.py '
                'SRC DST'
            )
        own = self.state_dict()
        found = describe_keys(weights, stages=len(self.stages))
        wanted = describe_keys(own, stages=len(self.stages))
        if found not in (None, wanted):
            return (
                f'DAMamba: this model has {wanted}; the checkpoint seems to '
                f"have {found}. Set arch and layer_scale to the checkpoint's, "
                'or take another checkpoint'
            )
        for name, value in own.items():
            other = weights.get(name)
            if other is not None and other.shape != value.shape:
                return (
                    f'DAMamba: {name} has the shape {tuple(value.shape)} in '
                    f'this model and {tuple(other.shape)} in the checkpoint, '
                    "which is of another size. Set arch to the checkpoint's"
                )
        return None

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # Inside a larger model, a file may well hold other parts alone.
        if not prefix and not state_dict.keys() & self.state_dict().keys():
            raise ValueError(
                "DAMamba: expected keys like 'stages.0.0.norm1.weight', got "
                f'{list(state_dict)[:3]}. Convert a released checkpoint '
                'first: python tools/model_converters/damamba.py SRC DST. '
                'From the checkpoint of a whole model take the backbone by '
                "its prefix, as in init_cfg=dict(type='Pretrained', "
                "checkpoint=PATH, prefix='backbone.')"
            )


def describe_keys(keys: Iterable[str], stages: int) -> str | None:
    """Depths and layer scale that names of parameters tell of.

    Args:
        keys: Names within :class:`DAMamba`.
        stages: How many stages to look at.

    Returns:
        Such as 'depths (3, 4, 12, 5) and no layer scale', None if there are
        no blocks.
    """
    blocks: dict[int, set[str]] = {}
    scaled = set()
    for key in keys:
        match = BLOCK_PART.match(key)
        if match and int(match[1]) < stages:
            blocks.setdefault(int(match[1]), set()).add(match[2])
            if match[3] == 'scale1':
                scaled.add(int(match[1]))
    if not blocks:
        return None
    depths = tuple(len(blocks.get(i, ())) for i in range(max(blocks) + 1))
    scale = f'layer scale in stages {sorted(scaled)}' if scaled else ''
    return f'depths {depths} and {scale or "no layer scale"}'


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let no BN of a module count the batches that it sees inside."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    counted = [norm.num_batches_tracked for norm in norms]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counted, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _conv_norm(
    in_channels: int, out_channels: int, stride: int, norm_cfg: dict
) -> ConvNorm:
    # Not a ConvModule, which warns of the bias that the weights have.
    return ConvNorm(
        OrderedDict(
            conv=nn.Conv2d(
                in_channels, out_channels, 3, stride=stride, padding=1
            ),
            norm=build_norm_layer(norm_cfg, out_channels)[1],
        )
    )
