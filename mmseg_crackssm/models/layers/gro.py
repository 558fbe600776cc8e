"""Global re-optimisation of the decoded feature."""

import torch
import torch.nn as nn
from mmseg.models.utils import resize
from torch import Tensor


class GlobalReoptimization(nn.Module):
    """Global re-optimisation module (GRO).

    X and Y are point-wise projections of the decoded feature F_out and of
    the structure map I_hf, the mean of the image's three high-frequency
    bands. Their agreement S = σ(Proj(X ⊙ Y)) blends the two:
    F = (1 − S) ⊙ F_out + S ⊙ Proj(I_hf) (CrackSSM, Key Design 4).

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

    def forward(self, x: Tensor, structure: Tensor) -> Tensor:
        """Re-optimise F_out.

        Args:
            x: F_out (B, C, H, W).
            structure: I_hf (B, image_channels, h, w); resized to H×W.

        Returns:
            F (B, C, H, W).
        """
        structure = resize(
            structure, size=x.shape[-2:], mode='bilinear', align_corners=False
        )
        # In the memory order of x: operators on two orders are slow.
        if x.is_contiguous(memory_format=torch.channels_last):
            structure = structure.contiguous(memory_format=torch.channels_last)
        latent = self.project_feature(x) * self.project_structure(structure)
        edges = self.project_edges(structure)
        # Under autocast x is float32 behind some normalisations; lerp takes
        # operands of one type.
        return torch.lerp(
            x, edges.to(x.dtype), self.similarity(latent).to(x.dtype)
        )
