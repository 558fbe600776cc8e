import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from checks import label_samples
from mmseg_crackssm.apis import load_config
from mmseg_crackssm.models.decode_heads.crack_pid_head import label_edges


def test_edges_by_hand():
    label = torch.zeros(1, 5, 7, dtype=torch.long)
    label[:, :, 3] = 1
    thin = label_edges(label, ignore_index=255, width=1)
    assert thin[0].tolist() == [[0, 0, 0, 1, 1, 0, 0]] * 5
    wide = label_edges(label, ignore_index=255)
    assert wide[0].tolist() == [[0, 0, 1, 1, 1, 1, 0]] * 5


def test_borders_of_ignored_pixels_are_none():
    label = torch.zeros(1, 5, 7, dtype=torch.long)
    label[:, :, 3] = 255
    assert label_edges(label, ignore_index=255).sum() == 0


@pytest.fixture
def model():
    init_default_scope('mmseg')
    config = load_config('pidnet-s_cfd-320').model
    return revert_sync_batchnorm(MODELS.build(config))


def test_learns(model):
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[:, 30:34] = 1
    image = torch.randn(2, 3, 64, 64) - 3.0 * label[:, None]
    history = []
    for _ in range(24):
        losses = model.loss(image, label_samples(label))
        names = {name for name in losses if 'loss' in name}
        loss = sum(losses[name] for name in names)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert names == {
        'decode.loss_boundary',
        *(
            f'decode.loss_{kind}_{branch}'
            for kind in ('bce', 'dice')
            for branch in ('detail', 'whole', 'border')
        ),
    }
    assert history[-1] < 0.9 * history[0]


def test_every_parameter_gets_a_gradient(model):
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[:, 30:34] = 1
    losses = model.loss(torch.randn(2, 3, 64, 64), label_samples(label))
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    without = [k for k, p in model.named_parameters() if p.grad is None]
    assert not without


def test_ignored_pixels_do_not_count(model):
    torch.manual_seed(0)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[:, 30:34] = 1
    logits = [torch.randn(2, 1, 8, 8) for _ in range(3)]
    voided = label.clone()
    voided[:, :16] = 255
    head = model.decode_head
    first = head.loss_by_feat(logits, label_samples(voided))
    other = [x.clone() for x in logits]
    for x in other[:2]:
        # Of these rows the resized logits of row 16 and below hold nothing.
        x[..., :1, :] += 5
    second = head.loss_by_feat(other, label_samples(voided))
    assert first['loss_bce_whole'] == second['loss_bce_whole']
    assert first['loss_dice_detail'] == second['loss_dice_detail']
