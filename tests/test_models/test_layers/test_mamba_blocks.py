"""The blocks that He and Wang compare, on their own."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from checks import untrained_parameters
from mmseg_crackssm.models import (
    BlockNeck,
    CrackMambaBlock,
    VanillaVSSBlock,
    VimBlock,
    VSSBackbone,
    VSSBlock,
)
from mmseg_crackssm.models.layers import S6, BidirectionalMamba, scan_cross
from mmseg_crackssm.ops import selective_scan

BLOCKS = [CrackMambaBlock, VanillaVSSBlock, VSSBlock, VimBlock]


@pytest.mark.parametrize('block', BLOCKS)
@pytest.mark.parametrize('size', [(5, 7), (1, 1), (8, 3)])
def test_shape_is_kept(block, size):
    module = block(16)
    x = torch.randn(2, 16, *size, requires_grad=True)
    out = module(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert untrained_parameters(module) == [] or size == (1, 1)
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('block', BLOCKS)
def test_registered(block):
    init_default_scope('mmseg')
    built = MODELS.build(
        dict(type=block.__name__, channels=8, d_state=2, drop_path=0.5)
    )
    assert type(built) is block


@pytest.mark.parametrize('block', BLOCKS)
def test_every_pixel_sees_every_other(block):
    """One path from each pixel to each: what no 3x3 convolution gives."""
    module = block(8).double().eval()
    x = torch.randn(1, 8, 9, 9, dtype=torch.float64, requires_grad=True)
    for row, column in ((0, 0), (4, 4), (8, 8)):
        (grad,) = torch.autograd.grad(module(x)[..., row, column].sum(), x)
        assert (grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize('block', BLOCKS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(block, dtype):
    module = block(16).eval()
    x = torch.randn(1, 16, 6, 6)
    with torch.no_grad(), torch.autocast('cpu', dtype=dtype):
        half = module(x)
    assert half.isfinite().all()
    with torch.no_grad():
        torch.testing.assert_close(half.float(), module(x), atol=0.1, rtol=0.1)


def test_bidirectional_mamba_equals_its_definition():
    layer = BidirectionalMamba(8, d_state=3).double()
    d = 16
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    tokens = x.flatten(2)

    def one_direction(tokens, k):
        xz = torch.einsum('oi,bil->bol', layer.in_proj.weight, tokens)
        u, z = xz.chunk(2, dim=1)
        rows = slice(k * d, (k + 1) * d)
        # Causal: a token and the three before it.
        u = F.conv1d(
            F.pad(u, (3, 0)),
            layer.conv.weight[rows],
            layer.conv.bias[rows],
            groups=d,
        )
        u = F.silu(u)
        s6 = layer.s6
        dt, B, C = torch.split(s6.x_proj_weight[k] @ u, (1, 3, 3), dim=1)
        y = selective_scan(
            u,
            s6.dt_proj_weight[k] @ dt,
            -s6.A_log[rows].exp(),
            B[:, None],
            C[:, None],
            D=s6.D[rows],
            delta_bias=s6.dt_proj_bias[k],
            delta_softplus=True,
            backend='reference',
        )
        return y * F.silu(z)

    there = one_direction(tokens, k=0)
    back = one_direction(tokens.flip(-1), k=1).flip(-1)
    expected = torch.einsum(
        'oi,bil->bol', layer.out_proj.weight, there + back
    ).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


def test_crackmamba_equals_its_definition():
    block = CrackMambaBlock(8).double().eval()
    bn = block.conv.norm
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64)

    normed = F.layer_norm(
        x.movedim(1, -1), (8,), block.norm.weight, block.norm.bias
    )
    u, v = (normed @ block.in_proj.weight.T).movedim(-1, 1).chunk(2, dim=1)
    u = F.conv2d(u, block.conv.conv.weight, padding=1, groups=16)
    u = F.gelu(bn(u))
    y = scan_cross(block.s6, u)
    weight, bias = block.attention_norm.weight, block.attention_norm.bias
    attention = F.layer_norm(y.movedim(1, -1), (16,), weight, bias).sigmoid()
    out = (attention * v.movedim(1, -1)) @ block.out_proj.weight.T
    torch.testing.assert_close(block(x), x + out.movedim(-1, 1))
    assert (attention > 0).all() and (attention < 1).all()


def test_attention_decides_where_the_feature_passes():
    block = CrackMambaBlock(8).eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        block.attention_norm.weight.zero_()
        block.attention_norm.bias.fill_(-100.0)
        torch.testing.assert_close(block(x), x)
        block.attention_norm.bias.fill_(100.0)
        _, feature = block.in_proj(block.norm(x)).chunk(2, dim=1)
        torch.testing.assert_close(block(x), x + block.out_proj(feature))


@pytest.mark.parametrize('block', BLOCKS)
def test_stochastic_depth_drops_the_residual(block):
    module = block(8, drop_path=0.999999).train()
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(module(x), x)


@pytest.mark.parametrize('block', BLOCKS)
def test_in_the_stages_of_vmamba(block):
    model = VSSBackbone(
        arch=dict(channels=8, depths=(1, 2)),
        out_indices=(0, 1),
        block=dict(type=block.__name__),
        drop_path_rate=0.2,
        backend='torch',
    )
    assert all(
        m.backend == 'torch' for m in model.modules() if isinstance(m, S6)
    )
    modules = [b for stage in model.stages for b in stage]
    assert [type(b) for b in modules] == [block] * 3
    assert modules[-1].drop_path.drop_prob == pytest.approx(0.2)
    maps = model(torch.rand(1, 3, 33, 40))
    assert [tuple(x.shape[1:]) for x in maps] == [(8, 9, 10), (16, 5, 5)]


def test_neck():
    neck = BlockNeck((4, 8), block=dict(type='CrackMambaBlock', d_state=2))
    maps = [torch.rand(1, 4, 8, 8), torch.rand(1, 8, 4, 4)]
    outs = neck(maps)
    assert [x.shape for x in outs] == [x.shape for x in maps]
    with pytest.raises(ValueError, match='expected 2 maps'):
        neck(maps[:1])
