import pytest
import torch
import torch.nn.functional as F

from mmseg_crackssm.models.layers import (
    ConvDownsample,
    ConvStem,
    LayerNorm2d,
    Linear2d,
    PatchifyStem,
    PatchMerging2d,
)
from mmseg_crackssm.models.layers.patch_layers import split_outputs


def test_layer_norm_is_over_the_channels():
    norm = LayerNorm2d(6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    mean = x.mean(1, keepdim=True)
    var = x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / (var + 1e-5).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_linear_is_a_pointwise_convolution():
    linear = Linear2d(6, 5)
    assert not linear.bias.any()
    assert 0 < linear.weight.abs().max() < 0.1
    torch.nn.init.normal_(linear.bias)
    x = torch.randn(2, 6, 3, 4)
    expected = F.conv2d(x, linear.weight[:, :, None, None], linear.bias)
    torch.testing.assert_close(linear(x), expected)


@pytest.mark.parametrize('stem', [PatchifyStem, ConvStem])
@pytest.mark.parametrize(
    ('size', 'expected'),
    [((16, 20), (4, 5)), ((17, 18), (5, 5)), ((1, 3), (1, 1))],
)
def test_stems_take_any_size(stem, size, expected):
    out = stem(3, 8)(torch.randn(2, 3, *size))
    assert out.shape == (2, 8, *expected)


@pytest.mark.parametrize('stem', [PatchifyStem, ConvStem])
def test_stems_see_the_last_pixel(stem):
    x = torch.randn(1, 3, 17, 19, requires_grad=True)
    stem(3, 8)(x).square().sum().backward()
    assert x.grad[..., -1, -1].abs().sum() > 0


@pytest.mark.parametrize('downsample', [PatchMerging2d, ConvDownsample])
@pytest.mark.parametrize(
    ('size', 'expected'),
    [((8, 6), (4, 3)), ((7, 5), (4, 3)), ((1, 1), (1, 1))],
)
def test_downsamplings_take_any_size(downsample, size, expected):
    layer = downsample(4, 10)
    out = layer(torch.randn(2, 4, *size))
    assert out.shape == (2, 10, *expected)
    out.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_patch_merging_order():
    layer = PatchMerging2d(1, 4)
    with torch.no_grad():
        layer.reduction.weight.copy_(torch.eye(4))
    out = layer(torch.tensor([[[[0.0, 2.0], [1.0, 3.0]]]]))
    # Down the first column, then down the second: ascending.
    assert out.flatten().diff().min() > 0


@pytest.mark.parametrize('bias', (False, True))
@pytest.mark.parametrize('watched', (False, True))
def test_outputs_in_parts(bias, watched):
    layer = Linear2d(6, 8, bias=bias)
    x = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last)
    expected = layer(x).chunk(2, dim=1)
    seen = []
    if watched:
        layer.register_forward_hook(lambda *args: seen.append(args[2]))
    parts = split_outputs(layer, x, parts=2)
    assert len(seen) == watched
    for part, value in zip(parts, expected, strict=True):
        torch.testing.assert_close(part, value)
        in_one_piece = part.is_contiguous(memory_format=torch.channels_last)
        assert in_one_piece != watched


def test_outputs_of_another_layer_in_parts():
    layer, x = torch.nn.Conv2d(6, 8, 1), torch.randn(2, 6, 5, 7)
    first, second = split_outputs(layer, x, parts=2)
    assert torch.equal(torch.cat((first, second), dim=1), layer(x))
