"""Decoder of CrackSSM."""

import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor

from ...ops import high_bands, serves_maps, upsample_concat
from ..layers.conv_norm import ConvModule, has_hooks
from ..layers.gro import GlobalReoptimization
from ..layers.wavelet_gate import NUM_BANDS, WaveletGate
from .one_logit_head import OneLogitHead


class DecoderLevel(nn.Module):
    """One step of the top-down path.

    Upsamples the coarser feature, puts the skip feature beside it, if there
    is one, applies the wavelet gate and joins them by 3×3 convolutions. The
    gate comes first, so that the convolutions see the image's fine edges
    that the upsampled feature has lost.

    Args:
        in_channels: Channels of the coarser feature.
        skip_channels: Channels of the skip feature; 0 for none.
        out_channels: Channels of the result.
        num_convs: Number of 3×3 convolutions.
        gate: The wavelet gate, or None.
        conv_cfg, norm_cfg, act_cfg: As in mmcv's ``ConvModule``.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        num_convs: int,
        gate: WaveletGate | None,
        conv_cfg: dict | None,
        norm_cfg: dict | None,
        act_cfg: dict | None,
    ) -> None:
        super().__init__()
        widths = [in_channels + skip_channels] + [out_channels] * num_convs
        self.convs = nn.Sequential(
            *(
                ConvModule(
                    c_in,
                    c_out,
                    kernel_size=3,
                    padding=1,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg,
                    act_cfg=act_cfg,
                )
                for c_in, c_out in zip(widths[:-1], widths[1:], strict=True)
            )
        )
        self.gate = gate

    def forward(
        self,
        x: Tensor,
        skip: Tensor | None,
        size: tuple[int, int],
        bands: Tensor | None,
    ) -> Tensor:
        """Decode one level.

        Args:
            x: Coarser feature (B, in_channels, h, w).
            skip: (B, skip_channels, H, W), or None.
            size: (H, W).
            bands: The image's high-frequency bands; unused without a gate.

        Returns:
            (B, out_channels, H, W).
        """
        return self.convs(self._merge(x, skip, size, bands))

    def _merge(
        self,
        x: Tensor,
        skip: Tensor | None,
        size: tuple[int, int],
        bands: Tensor | None,
    ) -> Tensor:
        """What the convolutions read, (B, in + skip_channels, H, W)."""
        if serves_maps(x, skip) and self._knows_gate():
            gate = None
            if self.gate is not None:
                gate = self.gate.opening(bands, size=size).to(x.dtype)
            return upsample_concat(x, skip, gate, size=size)
        x = resize(x, size=size, mode='bilinear', align_corners=False)
        if skip is not None:
            x = torch.cat((x, skip), dim=1)
        if self.gate is not None:
            x = self.gate(x, bands)
        return x

    def _knows_gate(self) -> bool:
        """Whether all that the gate does is to multiply by its opening."""
        return self.gate is None or (
            type(self.gate) is WaveletGate and not has_hooks(self.gate)
        )


def crop_centre(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of a map.

    Bands of wavelets longer than Haar's reach beyond the image on all
    sides.

    Args:
        x: Map (B, C, h, w).
        size: (H, W) with H <= h, W <= w.

    Returns:
        (B, C, H, W).
    """
    top, left = ((n - m) // 2 for n, m in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]


@MODELS.register_module()
class CrackSSMHead(OneLogitHead):
    """Top-down decoder with wavelet gates and global re-optimisation.

    Three levels join F4, F̂3, F̂2 and F̂1 at strides 16, 8 and 4; a last one
    works at stride 2, where the image's one-level Haar transform lives, and
    passes GRO. A sub-pixel convolution then gives one logit per image pixel.
    The image comes as the last feature map: use
    :class:`~mmseg_crackssm.models.ImageGuidedEncoderDecoder`.

    Args:
        in_channels: Channels of the four levels, finest first, then of the
            image.
        channels: Channels of the last level, at stride 2.
        level_channels: Channels of the levels at strides 16, 8 and 4.
        level_convs: 3×3 convolutions of the levels at strides 16, 8, 4, 2.
        use_wgm: Gate every level by WGM.
        use_gro: Pass the last level through GRO.
        gate_channels: Channels inside each wavelet gate, per band.
        wavelet: Name of the wavelet (PyWavelets).
        prior: Crack probability of every pixel before training. Cracks are
            rare; from 0.5 the first iterations would only learn that.
        in_index: Indices of the four levels and of the image.
        num_classes, out_channels, threshold: One logit, sigmoid, threshold.
        norm_cfg, act_cfg, conv_cfg, dropout_ratio, loss_decode,
            ignore_index, align_corners, init_cfg: As in mmseg's
            ``BaseDecodeHead``.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (32, 64, 128, 256, 3),
        channels: int = 32,
        level_channels: Sequence[int] = (128, 64, 40),
        level_convs: Sequence[int] = (2, 2, 2, 3),
        use_wgm: bool = True,
        use_gro: bool = True,
        gate_channels: int = 8,
        wavelet: str = 'haar',
        prior: float = 0.02,
        *,
        in_index: Sequence[int] = (0, 1, 2, 3, -1),
        num_classes: int = 2,
        out_channels: int = 1,
        threshold: float = 0.5,
        dropout_ratio: float = 0.0,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        loss_decode: dict | Sequence[dict] | None = None,
        ignore_index: int = 255,
        align_corners: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if len(in_channels) != 5 or len(in_index) != 5:
            raise ValueError(
                'CrackSSMHead: expected five in_channels and in_index, four '
                'feature levels (finest first) and the image, got '
                f'in_channels={tuple(in_channels)}, in_index='
                f'{tuple(in_index)}. ImageGuidedEncoderDecoder appends the '
                'image as the last feature.'
            )
        norm_cfg = norm_cfg or dict(type='BN')
        act_cfg = act_cfg or dict(type='ReLU')
        super().__init__(
            in_channels=list(in_channels),
            channels=channels,
            num_classes=num_classes,
            out_channels=out_channels,
            threshold=threshold,
            dropout_ratio=dropout_ratio,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            in_index=list(in_index),
            input_transform='multiple_select',
            loss_decode=loss_decode
            or [
                dict(type='CrackBCELoss', loss_weight=3.0),
                dict(type='CrackDiceLoss', loss_weight=1.0),
            ],
            ignore_index=ignore_index,
            align_corners=align_corners,
            init_cfg=init_cfg,
        )
        self.wavelet = wavelet
        image_channels = in_channels[4]
        widths = [in_channels[3], *level_channels, channels]
        skips = [*in_channels[2::-1], 0]
        self.levels = nn.ModuleList(
            DecoderLevel(
                in_channels=widths[i],
                skip_channels=skips[i],
                out_channels=widths[i + 1],
                num_convs=level_convs[i],
                gate=WaveletGate(
                    image_channels=image_channels,
                    channels=gate_channels,
                    norm_cfg=norm_cfg,
                )
                if use_wgm
                else None,
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                act_cfg=act_cfg,
            )
            for i in range(4)
        )
        self.gro = (
            GlobalReoptimization(channels, image_channels=image_channels)
            if use_gro
            else None
        )
        # Four logits per pixel of stride 2: a sub-pixel convolution.
        self.conv_seg = nn.Conv2d(channels, 4 * self.out_channels, 1)
        nn.init.constant_(self.conv_seg.bias, math.log(prior / (1 - prior)))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Decode.

        Args:
            inputs: Features (B, C_i, H_i, W_i) of the backbone or neck, the
                image (B, 3, H, W) last.

        Returns:
            Logits (B, out_channels, H, W) at the image's size.

        Raises:
            ValueError: If the last feature is not the image.
        """
        *features, image = self._transform_inputs(inputs)
        self._check_image(features[0], image)
        size = tuple((side + 1) // 2 for side in image.shape[-2:])
        bands = high_bands(image, wavelet=self.wavelet)
        bands = crop_centre(bands, size=size)
        x = features[3]
        for level, skip in zip(
            self.levels, (*features[2::-1], None), strict=True
        ):
            level_size = size if skip is None else skip.shape[-2:]
            x = level(x, skip=skip, size=level_size, bands=bands)
        logits = F.pixel_shuffle(self._classify(x, bands), upscale_factor=2)
        return logits[..., : image.shape[-2], : image.shape[-1]]

    def _classify(self, x: Tensor, bands: Tensor) -> Tensor:
        if self.gro is None:
            return self.cls_seg(x)
        structure = bands.unflatten(1, (NUM_BANDS, -1)).mean(dim=1)
        drops = self.training and self.dropout is not None
        if drops or has_hooks(self.gro):
            return self.cls_seg(self.gro(x, structure))
        return self.gro(x, structure, then=self.conv_seg)

    def _check_image(self, finest: Tensor, image: Tensor) -> None:
        expected = self.in_channels[4]
        if (
            image.shape[1] != expected
            or image.shape[-1] < finest.shape[-1]
            or image.shape[-2] < finest.shape[-2]
        ):
            raise ValueError(
                'CrackSSMHead: expected the image with '
                f'{expected} channels as the feature in_index[4]='
                f'{self.in_index[4]}, got shape {tuple(image.shape)} beside '
                f'F1 of shape {tuple(finest.shape)}. Build the model with '
                "type='ImageGuidedEncoderDecoder'."
            )
