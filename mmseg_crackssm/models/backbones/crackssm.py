"""Encoder of CrackSSM: VSS followed by dynamic path scanning."""

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class CrackSSMBackbone(BaseModule):
    """A four-level encoder whose maps pass through :class:`DPSM`.

    Args:
        encoder: Config of the encoder: any mmseg backbone with four levels;
            CrackSSM's is ``dict(type='VSSBackbone', arch='crackssm')``.
            Pretrained weights come in by its ``init_cfg``.
        dpsm: Config of :class:`DPSM` without its type.
        init_cfg: mmengine initialisation.
    """

    def __init__(
        self,
        encoder: dict,
        dpsm: dict,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.encoder = MODELS.build(encoder)
        self.dpsm = MODELS.build(dict(dpsm, type='DPSM'))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            x: Normalised images (B, 3, H, W).

        Returns:
            (F̂1, F̂2, F̂3, F4, F_dir): four maps at strides 4, 8, 16, 32 and
            the direction intensities at stride 32.
        """
        return self.dpsm(self.encoder(x))
