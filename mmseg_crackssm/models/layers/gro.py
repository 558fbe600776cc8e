"""Global re-optimisation of the decoded feature."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.models.utils import resize
from torch import Tensor

from .conv_norm import has_hooks, is_plain_conv
from .pointwise import pointwise


class GlobalReoptimization(nn.Module):
    """Global re-optimisation module (GRO).

    X and Y are point-wise projections of the decoded feature F_out and of
    the structure map I_hf, the mean of the image's three high-frequency
    bands. Their agreement S = σ(Proj(X ⊙ Y)) blends the two:
    F = (1 − S) ⊙ F_out + S ⊙ Proj(I_hf) (CrackSSM, Key Design 4).

    In front of σ stands a form that is linear in F_out and in I_hf, which
    has few channels: the projections are multiplied with each other, and X
    and Y need not be computed.

    Args:
        channels: Channels C of F_out.
        image_channels: Channels of I_hf.
        latent_channels: Channels of X and Y; ``channels`` if None.
    """

    def __init__(
        self,
        channels: int,
        image_channels: int = 3,
        latent_channels: int | None = None,
    ) -> None:
        super().__init__()
        latent_channels = latent_channels or channels
        self.project_feature = nn.Conv2d(channels, latent_channels, 1)
        self.project_structure = nn.Conv2d(image_channels, latent_channels, 1)
        self.similarity = nn.Sequential(
            nn.Conv2d(latent_channels, 1, 1), nn.Sigmoid()
        )
        self.project_edges = nn.Conv2d(image_channels, channels, 1)

    def forward(
        self, x: Tensor, structure: Tensor, then: nn.Conv2d | None = None
    ) -> Tensor:
        """Re-optimise F_out.

        Args:
            x: F_out (B, C, H, W).
            structure: I_hf (B, image_channels, h, w); resized to H×W.
            then: A 1×1 convolution to C' channels that F is for. As S is
                one number per pixel, the convolution passes by it, and F
                need not be computed either.

        Returns:
            F (B, C, H, W), or ``then(F)`` (B, C', H, W).
        """
        size = x.shape[-2:]
        if structure.shape[-2:] != size:
            structure = resize(
                structure, size=size, mode='bilinear', align_corners=False
            )
        if self._multiplies(then):
            return self._blend_by_form(x, structure.contiguous(), then)
        structure = _ordered_as(structure, x)
        latent = self.project_feature(x) * self.project_structure(structure)
        edges = self.project_edges(structure)
        blended = _blend(x, edges, self.similarity(latent))
        return blended if then is None else then(blended)

    def _blend_by_form(
        self, x: Tensor, structure: Tensor, then: nn.Conv2d | None
    ) -> Tensor:
        weight, bias = self._form()
        if then is None:
            form = pointwise(x, weight, bias)
            edges = self.project_edges(_ordered_as(structure, x))
        else:
            # Of x both at once: it is the one large map.
            both = pointwise(
                x,
                torch.cat((weight, then.weight[:, :, 0, 0])),
                torch.cat((bias, _bias(then))),
            )
            form, x = both.tensor_split((len(weight),), dim=1)
            edges = pointwise(structure, *_chain(self.project_edges, then))
        agreement = (form[:, :-1] * structure).sum(dim=1, keepdim=True)
        return _blend(x, edges, torch.sigmoid(agreement + form[:, -1:]))

    def _multiplies(self, then: nn.Module | None) -> bool:
        """Whether nothing but the weights counts of all convolutions."""
        convs = [
            self.project_feature,
            self.project_structure,
            self.project_edges,
            self.similarity[0],
        ]
        if then is not None:
            if not _is_pointwise(then):
                return False
            convs.append(then)
        return (
            all(map(is_plain_conv, convs))
            and type(self.similarity[1]) is nn.Sigmoid
            and not any(map(has_hooks, self.similarity.modules()))
        )

    def _form(self) -> tuple[Tensor, Tensor]:
        """The form of F_out whose product with (I_hf, 1) enters σ.

        Returns:
            Its weights (image_channels + 1, C) and bias (image_channels +
            1).
        """
        similarity = self.similarity[0]
        # One channel more for what does not depend on I_hf.
        structure = torch.cat(
            (
                self.project_structure.weight[:, :, 0, 0],
                self.project_structure.bias[:, None],
            ),
            dim=1,
        )
        # Summed without a matrix product, which autocast would round.
        factor = similarity.weight[0, :, 0] * structure
        feature = self.project_feature.weight[:, None, :, 0, 0]
        weight = (factor[:, :, None] * feature).sum(dim=0)
        bias = (factor * self.project_feature.bias[:, None]).sum(dim=0)
        return weight, bias + F.pad(similarity.bias, (len(bias) - 1, 0))


def _ordered_as(x: Tensor, other: Tensor) -> Tensor:
    """In the memory order of another map: operators on two are slow."""
    is_last = other.is_contiguous(memory_format=torch.channels_last)
    return x.contiguous(
        memory_format=torch.channels_last
        if is_last
        else torch.contiguous_format
    )


def _is_pointwise(conv: nn.Module) -> bool:
    return isinstance(conv, nn.Conv2d) and (
        (conv.kernel_size, conv.stride, conv.padding, conv.groups)
        == ((1, 1), (1, 1), (0, 0), 1)
    )


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels)
    return conv.bias


def _chain(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of two 1×1 convolutions, one after the other."""
    factor = second.weight[:, :, 0, 0]
    weight = (factor[:, :, None] * first.weight[None, :, :, 0, 0]).sum(dim=1)
    return weight, (factor * _bias(first)).sum(dim=1) + _bias(second)


def _blend(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Operands of one type: under autocast some layers give float32."""
    return torch.lerp(x, other.to(x.dtype), share.to(x.dtype))
