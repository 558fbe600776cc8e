"""Dynamic path scanning Mamba: S6 along crack-ordered token sequences."""

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from mmseg.models.utils import SELayer, resize
from mmseg.registry import MODELS
from torch import Tensor

from ...ops import (
    gather_tokens,
    intensity_order,
    scan_order,
    scatter_tokens,
)
from .conv_norm import ConvModule
from .das import DynamicAdaptiveScan, name_scans
from .direction_map import DIRECTIONS, DirectionMap, check_directions
from .patch_layers import LayerNorm2d
from .s6 import S6

SNAKE_OF_DIRECTION = dict(
    horizontal='snake_h',
    vertical='snake_v',
    diagonal='snake_d',
    anti_diagonal='snake_a',
)
"""The snake order that walks along each crack direction."""

SCANS = ('atr', 'das', 'das+atr', 'snake')
"""What the sequences of DPSM can be.

'atr' sorts the tokens of a snake by direction intensity (CrackSSM's adaptive
token reordering). 'das' leaves the snakes unsorted, and lets them read the
map where dynamic adaptive scan has learned to look (DAMamba). 'das+atr' does
both, 'snake' neither.
"""


class AdaptiveTokenReordering(nn.Module):
    """S6 on token sequences sorted by direction intensity (ATR).

    For each direction k the tokens are laid out along the snake that walks
    in that direction, sorted by descending intensity (stable, so that ties
    keep the snake order), run through S6 and put back in place. The results
    are concatenated, fused by a point-wise convolution, weighted by an SE
    block and added to the input (CrackSSM, Key Design 1).

    With dynamic adaptive scan, a token is what the map holds at an offset
    from its place. The offsets are predicted from the map itself, and are
    zero before training.

    Args:
        channels: Channels C of the feature map.
        directions: Names out of :data:`DIRECTIONS`.
        d_state: State size N of S6.
        se_ratio: Reduction of the SE block.
        scan: One of :data:`SCANS`.
        head_dim: Channels that dynamic adaptive scan reads at the same
            place; divides C. Of no effect without.
        norm_cfg: Normalisation after the point-wise convolution.
        backend: Backend of the selective scan.

    Raises:
        ValueError: If the scan or a direction is unknown, or ``head_dim``
            does not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        directions: Sequence[str] = DIRECTIONS,
        d_state: int = 16,
        se_ratio: int = 4,
        scan: str = 'atr',
        head_dim: int = 16,
        norm_cfg: dict | None = None,
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        directions = check_directions(directions)
        self.snakes = tuple(SNAKE_OF_DIRECTION[name] for name in directions)
        if scan not in SCANS:
            raise ValueError(
                f'DPSM scan: expected one of {", ".join(SCANS)}, got {scan!r}'
            )
        self.reorder = scan.endswith('atr')
        self.norm = LayerNorm2d(channels)
        self.das = None
        if scan.startswith('das'):
            self.das = DynamicAdaptiveScan(channels, head_dim=head_dim)
            # The snakes begin as they are.
            nn.init.zeros_(self.das.offset.weight)
        self.s6 = S6(
            channels,
            d_state=d_state,
            n_groups=len(directions),
            backend=backend,
        )
        self.fuse = ConvModule(
            channels * len(directions),
            channels,
            kernel_size=1,
            norm_cfg=norm_cfg,
            act_cfg=None,
        )
        self.se = SELayer(
            channels,
            ratio=se_ratio,
            act_cfg=(dict(type='ReLU'), dict(type='Sigmoid')),
        )

    def token_order(
        self, direction_map: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """The order in which each direction's sequence visits the pixels.

        Args:
            direction_map: F_dir (B, K, h, w).
            size: (H, W) of the feature map to scan.

        Returns:
            (B, K, H*W) long, or (K, H*W) without reordering: position in
            the sequence -> row-major pixel index.
        """
        snakes = torch.stack(
            [
                scan_order(name, *size, device=direction_map.device)
                for name in self.snakes
            ]
        )
        if not self.reorder:
            return snakes
        key = resize(
            direction_map.detach().float(),
            size=size,
            mode='bilinear',
            align_corners=False,
        )
        # (B, K, 1, L): the key of each direction along its own snake.
        key = gather_tokens(key.flatten(2).unsqueeze(2), snakes).squeeze(2)
        rank = intensity_order(key)
        return snakes.expand_as(rank).gather(-1, rank)

    def forward(self, x: Tensor, direction_map: Tensor) -> Tensor:
        """Enhance ``x``.

        Args:
            x: Feature map (B, C, H, W).
            direction_map: F_dir (B, K, h, w) of any size; it serves as a
                sorting key alone and gets no gradient from here.

        Returns:
            The enhanced feature map (B, C, H, W).
        """
        order = self.token_order(direction_map, x.shape[-2:])
        normed = self.norm(x)
        if self.das is not None:
            normed = self.das(normed, query=normed)
        if self.s6.fuses(normed):
            scanned = self.s6.along_paths(normed, order, merge=False)
            scanned = scanned.to(x.dtype)
        else:
            # One sequence (B, 1, C, L), read in K orders.
            tokens = gather_tokens(normed.flatten(2).unsqueeze(1), order)
            tokens = scatter_tokens(self.s6(tokens).to(x.dtype), order)
            scanned = tokens.flatten(1, 2).unflatten(-1, x.shape[-2:])
        return x + self.se(self.fuse(scanned))


@MODELS.register_module()
class DPSM(BaseModule):
    """Dynamic path scanning Mamba: CrackSSM's feature enhancement stage.

    Learns the direction intensities F_dir from the deepest of four feature
    maps and enhances the other three by :class:`AdaptiveTokenReordering`.
    As a registered neck it follows any mmseg backbone with four levels.

    Args:
        in_channels: Channels of F1, F2, F3, F4, from the finest level to
            the coarsest.
        directions: Crack directions: names out of :data:`DIRECTIONS`, in
            the order of F_dir's channels. The paper's ablation compares all
            four with the axial or the diagonal two.
        direction_channels: Channels of the coordinate convolution.
        d_state: State size N of S6.
        se_ratio: Reduction of the SE blocks.
        scan: How tokens are laid out in the sequences, one of :data:`SCANS`.
        head_dim: Channels that 'das' and 'das+atr' read at the same place;
            divides the channels of F1, F2, F3.
        norm_cfg: Normalisation of the convolutions.
        backend: Backend of the selective scan.
        init_cfg: mmengine initialisation.

    Raises:
        ValueError: If ``in_channels`` does not hold four numbers, the scan
            or a direction is unknown, or ``head_dim`` does not divide.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        directions: Sequence[str] = DIRECTIONS,
        direction_channels: int = 72,
        d_state: int = 16,
        se_ratio: int = 4,
        scan: str = 'atr',
        head_dim: int = 16,
        norm_cfg: dict | None = None,
        backend: str = 'auto',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if len(in_channels) != 4:
            raise ValueError(
                'DPSM in_channels: expected the channels of four levels, '
                f'finest first, got {tuple(in_channels)}. Select four levels '
                "with the backbone's out_indices."
            )
        norm_cfg = norm_cfg or dict(type='BN')
        self.directions = check_directions(directions)
        self.direction_map = DirectionMap(
            in_channels[3],
            direction_channels,
            num_directions=len(self.directions),
            norm_cfg=norm_cfg,
        )
        self.levels = nn.ModuleList(
            AdaptiveTokenReordering(
                channels,
                directions=self.directions,
                d_state=d_state,
                se_ratio=se_ratio,
                scan=scan,
                head_dim=head_dim,
                norm_cfg=norm_cfg,
                backend=backend,
            )
            for channels in in_channels[:3]
        )
        name_scans(self)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Enhance F1, F2, F3.

        Args:
            inputs: F1, F2, F3, F4, each (B, C_i, H_i, W_i).

        Returns:
            (F̂1, F̂2, F̂3, F4, F_dir); F_dir is (B, num_directions, H_4,
            W_4), as logits.

        Raises:
            ValueError: If the number of maps is not four.
        """
        if len(inputs) != 4:
            raise ValueError(
                f'DPSM: expected four feature maps, got {len(inputs)}'
            )
        direction_map = self.direction_map(inputs[3])
        enhanced = tuple(
            level(x, direction_map)
            for level, x in zip(self.levels, inputs, strict=False)
        )
        return (*enhanced, inputs[3], direction_map)
