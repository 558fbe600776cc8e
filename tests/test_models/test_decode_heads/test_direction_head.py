import pytest
import torch

from checks import label_samples
from mmseg_crackssm.models import DirectionHead
from mmseg_crackssm.models.losses import direction_target


def test_no_parameters_and_default_loss():
    head = DirectionHead()
    assert not list(head.parameters())
    assert head.loss_decode.loss_weight == 0.5


def test_loss_is_soft_cross_entropy_on_the_resized_map():
    head = DirectionHead()
    label = (torch.rand(2, 16, 24) > 0.7).long()
    direction_map = torch.randn(2, 4, 4, 6)
    losses = head.loss_by_feat(direction_map, label_samples(label))
    resized = torch.nn.functional.interpolate(
        direction_map, size=(16, 24), mode='bilinear'
    )
    target = direction_target(label == 1)
    expected = -(target * resized.log_softmax(1)).sum() / (label == 1).sum()
    torch.testing.assert_close(losses['loss_dir'], 0.5 * expected)


def test_reads_the_fifth_feature():
    features = [torch.zeros(1, c, 2, 2) for c in (8, 8, 8, 8, 4, 3)]
    assert DirectionHead()(features) is features[4]
    with pytest.raises(ValueError, match='in_index=4'):
        DirectionHead(in_index=-1)(features)


def test_loss_for_other_directions_is_refused():
    loss = dict(
        type='CrackDirectionLoss', directions=('diagonal', 'anti_diagonal')
    )
    with pytest.raises(ValueError, match='loss for directions .*horizontal'):
        DirectionHead(directions=('horizontal', 'vertical'), loss_decode=loss)
