import pytest
import torch

from checks import untrained_parameters
from mmseg_crackssm.models.layers import VSSBlock


@pytest.mark.parametrize('style', ['vanilla', 'v05_noz'])
def test_shape_and_gradients(style):
    block = VSSBlock(8, style=style, d_state=2)
    x = torch.randn(2, 8, 5, 7)
    out = block(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert untrained_parameters(block) == []


def test_styles_differ_in_gate_and_mlp():
    vanilla = dict(VSSBlock(8, style='vanilla').named_parameters())
    v05 = dict(VSSBlock(8, style='v05_noz').named_parameters())
    assert vanilla['ss2d.in_proj.weight'].shape == (32, 8)
    assert v05['ss2d.in_proj.weight'].shape == (16, 8)
    assert 'mlp.fc1.weight' not in vanilla
    assert v05['mlp.fc1.weight'].shape == (32, 8)


def test_bias_of_the_convolution_is_an_argument():
    for bias in (True, False):
        names = VSSBlock(8, conv_bias=bias).state_dict()
        assert ('ss2d.conv.bias' in names) == bias


@pytest.mark.parametrize('style', ['vanilla', 'v05_noz'])
def test_dropping_every_path_leaves_the_identity(style):
    block = VSSBlock(4, style=style, d_state=1, drop_path=0.999999)
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(block.train()(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_unknown_style():
    with pytest.raises(ValueError, match='vanilla'):
        VSSBlock(4, style='v2')
