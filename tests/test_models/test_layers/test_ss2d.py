import pytest
import torch
from torch import nn

from checks import untrained_parameters
from mmseg_crackssm.models.layers import SS2D, cross_merge, cross_scan
from mmseg_crackssm.ops import scan_order


@pytest.mark.parametrize(('height', 'width'), [(3, 5), (4, 4), (1, 6)])
def test_cross_scan_follows_the_scan_order(height, width):
    x = torch.randn(2, 3, height, width)
    order = scan_order('cross', height, width)
    expected = x.flatten(2)[..., order].transpose(1, 2)
    assert torch.equal(cross_scan(x), expected)


@pytest.mark.parametrize(('height', 'width'), [(3, 5), (4, 4), (1, 6)])
def test_cross_merge_sums_at_the_original_pixels(height, width):
    xs = torch.randn(2, 4, 3, height * width, dtype=torch.float64)
    order = scan_order('cross', height, width)
    expected = torch.zeros(2, 3, height * width, dtype=torch.float64)
    for k in range(4):
        expected.index_add_(2, order[k], xs[:, k])
    torch.testing.assert_close(
        cross_merge(xs, height=height, width=width).flatten(2), expected
    )


class RunningSum(nn.Module):
    """Stands in for S6: the sum of the tokens so far."""

    def fuses(self, x):
        return False

    def forward(self, xs):
        return xs.cumsum(-1)


def test_each_pixel_sees_all_four_directions():
    """With S6 a running sum, pixel (h, w) gets the sum of its prefixes."""
    layer = SS2D(4, expand=1.0).double()
    layer.s6 = RunningSum()
    layer.in_proj = layer.out_norm = layer.out_proj = layer.conv = (
        nn.Identity()
    )
    layer.gate = False
    x = torch.zeros(1, 4, 3, 5, dtype=torch.float64)
    x[0, :, 1, 2] = 100.0  # SiLU(100) = 100 to the last digit of float64
    out = layer(x)[0, 0]
    # Rows: at or behind (1, 2); columns likewise; and both reversed.
    assert out[1, 2] == 400
    assert out[1, 3] == 200 and out[1, 1] == 200
    assert out[0, 3] == 200  # reversed rows, columns
    assert out[2, 1] == 200  # rows, reversed columns


def test_one_pixel():
    x = torch.randn(2, 8, 1, 1)
    assert SS2D(8, d_state=2)(x).shape == x.shape


@pytest.mark.parametrize('gate', [True, False])
def test_shape_and_gradients(gate):
    layer = SS2D(8, d_state=2, expand=1.5, gate=gate, conv_bias=gate)
    x = torch.randn(2, 8, 5, 7, requires_grad=True)
    out = layer(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert untrained_parameters(layer) == []


def test_rank_comes_from_the_outer_channels():
    assert SS2D(40, expand=2.0).s6.dt_rank == 3
    assert SS2D(40, expand=2.0, dt_rank=5).s6.dt_rank == 5


def test_result_of_the_scan_may_exceed_half_precision():
    """Under autocast the merge and the norm come before the rounding."""
    ss2d = SS2D(4, d_state=2)
    ss2d.s6.D.data.fill_(1e6)
    x = torch.randn(1, 4, 5, 6)
    expected = ss2d(x)
    with torch.autocast('cpu', dtype=torch.float16):
        out = ss2d(x)
    assert out.isfinite().all()
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.01)
