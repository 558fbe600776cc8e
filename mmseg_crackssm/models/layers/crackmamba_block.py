"""CrackMamba: the selective scan as an attention map."""

import math

import torch.nn as nn
from mmcv.cnn.bricks import DropPath
from mmseg.registry import MODELS
from torch import Tensor

from .conv_norm import ConvModule
from .patch_layers import LayerNorm2d, Linear2d
from .s6 import S6
from .ss2d import NUM_SCANS, scan_cross


@MODELS.register_module()
class CrackMambaBlock(nn.Module):
    """Attention-like Mamba block (He and Wang, Section 2.3.2, Fig. 4d).

    ``x + PW(v * sigmoid(LN(S6(GELU(BN(DW(u)))))))`` with ``u, v =
    PW(LN(x))``, where S6 runs along the four paths of the cross scan.

    The paper draws the block and does not write it down; what stands here is
    an interpretation of its text, of the legend of Fig. 4 (PW Conv, BN,
    LN_VT, GELU, Sigmoid) and of the counts in Tables 2 and 4:

    - The parts are the vanilla VSS block's: its LayerNorm, a point-wise
      convolution that opens two branches, a depth-wise convolution, SS2D
      with its LayerNorm, a point-wise convolution back, and the skip.
    - In the vanilla block the second branch is the gate, SiLU(z), of the
      scanned feature. Here, as in SENet, CBAM and PAM, the scan makes the
      attention map, a sigmoid maps it to (0, 1), and it multiplies "the
      original feature": the other branch, on which nothing else acts.
    - BN follows the depth-wise convolution, as in the fusion module of
      CrackSeU, after which the block is modelled, and takes the place of the
      convolution's bias; GELU stands where the vanilla block has SiLU. At
      512 x 512 CrackSeU then has 3.9 M multiply-accumulates more than with
      the vanilla block, in the paper's counting. The printed 9.97 G allow
      0.77 to 5.96 M more, and the printed parameters under 6694 more; here
      they are 960.

    Args:
        channels: Channels C.
        d_state: State size N of S6.
        expand: Ratio of inner to outer channels.
        norm_cfg: Normalisation after the depth-wise convolution, as in
            mmcv; None for BN.
        drop_path: Probability of dropping the residual branch.
        backend: Backend of the selective scan.
        scan_dtype: Least precision of the recurrence.
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        expand: float = 2.0,
        norm_cfg: dict | None = None,
        drop_path: float = 0.0,
        backend: str = 'auto',
        scan_dtype: str = 'float32',
    ) -> None:
        super().__init__()
        d_inner = int(expand * channels)
        self.norm = LayerNorm2d(channels)
        self.in_proj = Linear2d(channels, 2 * d_inner, bias=False)
        self.conv = ConvModule(
            d_inner,
            d_inner,
            kernel_size=3,
            padding=1,
            groups=d_inner,
            norm_cfg=norm_cfg or dict(type='BN'),
            act_cfg=dict(type='GELU'),
        )
        self.s6 = S6(
            d_inner,
            d_state=d_state,
            # From the outer channels, as in SS2D.
            dt_rank=math.ceil(channels / 16),
            n_groups=NUM_SCANS,
            backend=backend,
            scan_dtype=scan_dtype,
        )
        self.attention_norm = LayerNorm2d(d_inner)
        self.out_proj = Linear2d(d_inner, channels, bias=False)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, H, W); the shape is kept."""
        u, feature = self.in_proj(self.norm(x)).chunk(2, dim=1)
        scanned = scan_cross(self.s6, self.conv(u))
        attention = self.attention_norm(scanned).sigmoid()
        return x + self.drop_path(self.out_proj(feature * attention))
