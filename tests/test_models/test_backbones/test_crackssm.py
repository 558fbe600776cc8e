import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS

from checks import untrained_parameters
from mmseg_crackssm.models import CrackSSMBackbone

CHANNELS = (4, 8, 16, 32)


def build_backbone():
    arch = dict(channels=4, depths=(1, 1, 1, 1), d_state=2)
    return MODELS.build(
        ConfigDict(
            type='CrackSSMBackbone',
            encoder=dict(type='VSSBackbone', arch=arch),
            dpsm=dict(in_channels=CHANNELS, d_state=2, direction_channels=6),
        )
    )


@pytest.mark.parametrize('size', [(64, 64), (45, 61)])
def test_shapes_and_gradients(size):
    backbone = build_backbone()
    assert isinstance(backbone, CrackSSMBackbone)
    outs = backbone(torch.randn(2, 3, *size))
    assert [out.shape[1] for out in outs] == [*CHANNELS, 4]
    for out, stride in zip(outs, (4, 8, 16, 32, 32), strict=True):
        assert out.shape[-2:] == tuple(-(-side // stride) for side in size)
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert untrained_parameters(backbone) == []


def test_is_the_encoder_and_then_dpsm():
    backbone = build_backbone().eval()
    image = torch.randn(1, 3, 40, 33)
    features = backbone.encoder(image)
    outs = backbone(image)
    torch.testing.assert_close(outs, backbone.dpsm(features))
    # F4 passes; the finer levels are enhanced.
    assert torch.equal(outs[3], features[3])
    for out, feature in zip(outs[:3], features[:3], strict=True):
        assert not torch.allclose(out, feature)
