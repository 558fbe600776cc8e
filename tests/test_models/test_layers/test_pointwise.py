"""1×1 convolutions of few channels as matrix products."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.testing import assert_close

from mmseg_crackssm.models.layers.conv_norm import conv_norm
from mmseg_crackssm.models.layers.pointwise import PointwiseConv2d, pointwise


@pytest.mark.parametrize('layout', ('contiguous_format', 'channels_last'))
@pytest.mark.parametrize('bias', (False, True))
@pytest.mark.parametrize('batch', (0, 1, 2))
@pytest.mark.parametrize('groups', (1, 3))
def test_equals_a_convolution(groups, batch, bias, layout):
    torch.manual_seed(0)
    x = torch.randn(batch, 6, 5, 7).contiguous(
        memory_format=getattr(torch, layout)
    )
    inputs = [x, torch.randn(9, 6 // groups)]
    if bias:
        inputs.append(torch.randn(9))
    for tensor in inputs:
        tensor.requires_grad_()
    x, weight, *rest = inputs
    y = pointwise(x, weight, rest[0] if rest else None, groups=groups)
    assert y.is_contiguous()
    expected = F.conv2d(x, weight[:, :, None, None], *rest, groups=groups)
    assert_close(y, expected)
    dy = torch.randn_like(y)
    assert_close(
        torch.autograd.grad(y, inputs, dy),
        torch.autograd.grad(expected, inputs, dy),
    )


def test_the_layer_holds_what_a_convolution_holds():
    conv = nn.Conv2d(6, 9, 1, groups=3)
    layer = PointwiseConv2d(6, 9, groups=3)
    layer.load_state_dict(conv.state_dict())
    x = torch.randn(2, 6, 5, 7)
    assert_close(layer(x), conv(x))


def test_takes_a_normalisation_into_its_weights(monkeypatch):
    layer = PointwiseConv2d(4, 6)
    norm = nn.BatchNorm2d(6).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 5, 7)
    expected = norm(layer(x))
    monkeypatch.setattr(F, 'batch_norm', None)
    assert_close(conv_norm(x, layer, norm), expected)
