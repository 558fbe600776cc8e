import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS

import mmseg_crackssm.models  # noqa: F401  (registers)
from checks import label_samples, untrained_parameters
from mmseg_crackssm.ops import available_backends

NORM = dict(type='BN')
CHANNELS = (8, 16, 32, 64)


def build_segmentor(**kwargs):
    cfg = dict(
        type='ImageGuidedEncoderDecoder',
        backbone=dict(
            type='CrackSSMBackbone',
            encoder=dict(
                type='VSSBackbone',
                arch=dict(channels=8, depths=(1, 1, 1, 1), d_state=2),
            ),
            dpsm=dict(in_channels=CHANNELS, d_state=2, direction_channels=8),
        ),
        decode_head=dict(
            type='CrackSSMHead',
            in_channels=(*CHANNELS, 3),
            channels=8,
            level_channels=(16, 8, 8),
        ),
        auxiliary_head=dict(type='DirectionHead'),
        test_cfg=dict(mode='whole'),
    )
    cfg.update(kwargs)
    return MODELS.build(ConfigDict(cfg))


def test_the_image_is_the_last_feature():
    model = build_segmentor()
    image = torch.randn(1, 3, 33, 47)
    features = model.extract_feat(image)
    assert len(features) == 6
    assert features[-1] is image


def test_losses_reach_every_parameter():
    model = build_segmentor()
    label = (torch.rand(2, 64, 64) > 0.8).long()
    losses = model.loss(torch.randn(2, 3, 64, 64), label_samples(label))
    assert set(losses) == {
        'decode.loss_bce',
        'decode.loss_dice',
        'decode.acc_seg',
        'aux.loss_dir',
    }
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    # The biases in front of a batch normalisation, which takes them away.
    assert all(
        name.endswith('.gates.0.bias') for name in untrained_parameters(model)
    )


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_prediction_of_any_size(mode):
    test_cfg = dict(mode=mode, crop_size=(32, 32), stride=(20, 20))
    model = build_segmentor(test_cfg=test_cfg).eval()
    (sample,) = model.predict(torch.randn(1, 3, 37, 51))
    assert sample.pred_sem_seg.data.shape == (1, 37, 51)
    assert set(sample.pred_sem_seg.data.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize('fused', (True, False))
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_scan_in_float32(dtype, fused, monkeypatch):
    from mmseg_crackssm.models.layers import s6

    if fused and 'native' not in available_backends():
        pytest.skip('the fused scan is the C kernel')
    seen = []
    name = 'selective_scan_paths' if fused else 'selective_scan'
    scan = getattr(s6, name)

    def spy(*args, **kwargs):
        out = scan(*args, **kwargs)
        tensors = (t for t in (*args, out) if isinstance(t, torch.Tensor))
        seen.extend(t.dtype for t in tensors if t.is_floating_point())
        return out

    monkeypatch.setattr(s6, name, spy)
    model = build_segmentor()
    for module in model.modules():
        if isinstance(module, s6.S6):
            module.fused = fused
    label = (torch.rand(2, 32, 32) > 0.8).long()
    with torch.autocast('cpu', dtype=dtype):
        losses = model.loss(torch.randn(2, 3, 32, 32), label_samples(label))
    assert all(torch.isfinite(v) for v in losses.values())
    assert seen and set(seen) == {torch.float32}


def test_single_tensor_features_are_accepted():
    model = build_segmentor()
    model.backbone = torch.nn.Conv2d(3, 4, 1)
    features = model.extract_feat(torch.randn(1, 3, 8, 8))
    assert [f.shape[1] for f in features] == [4, 3]
