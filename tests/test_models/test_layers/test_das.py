import pytest
import torch
from mmseg.registry import MODELS
from torch import nn

from checks import untrained_parameters
from mmseg_crackssm.models.layers import DAMambaBlock, DynamicAdaptiveScan
from mmseg_crackssm.models.layers.damamba_block import ResidualDepthwiseConv
from mmseg_crackssm.ops import adaptive_sample


def test_samples_at_offsets_of_the_query():
    das = DynamicAdaptiveScan(12, head_dim=4)
    das.offset.weight.data.normal_()
    values, query = torch.randn(2, 2, 12, 7, 5)
    offset = das.offsets(query)
    assert offset.shape == (2, 6, 7, 5) and offset.std() > 0.5
    out = das(values, query=query)
    assert torch.equal(out, adaptive_sample(values, offset))
    # Each group of channels looks elsewhere, all channels of one together.
    offset = offset.unflatten(1, (3, 2))
    assert not torch.equal(offset[:, 0], offset[:, 1])


def test_zero_offsets_are_a_plain_scan():
    das = DynamicAdaptiveScan(16)
    nn.init.zeros_(das.offset.weight)
    values = torch.randn(1, 16, 8, 4)
    assert torch.equal(das(values, torch.randn(1, 16, 8, 4)), values)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', ['', 'stages.0'])
def test_offsets_that_are_not_finite(bad, name):
    das = DynamicAdaptiveScan(16)
    das.layer_name = name
    nn.init.constant_(das.offset.bias, bad)
    where = f"DynamicAdaptiveScan '{name}'" if name else 'DynamicAdaptiveScan'
    with pytest.raises(ValueError, match=f'{where}: 40 of 40 offsets are NaN'):
        das(*torch.randn(2, 1, 16, 4, 5))


def test_large_offsets_are_fine_though_their_sum_overflows():
    das = DynamicAdaptiveScan(16)
    nn.init.constant_(das.offset.bias, 3e38)
    assert not das(*torch.randn(2, 1, 16, 4, 5)).any()


@pytest.mark.parametrize(('channels', 'head_dim'), [(24, 16), (16, 0)])
def test_head_dim_divides_the_channels(channels, head_dim):
    with pytest.raises(ValueError, match=f'got {channels} channels'):
        DynamicAdaptiveScan(channels, head_dim=head_dim)
    with pytest.raises(ValueError, match=f'got {channels} channels'):
        DAMambaBlock(channels, head_dim=head_dim)


def test_residual_convolution():
    conv = ResidualDepthwiseConv(6)
    x = torch.randn(2, 6, 5, 7)
    plain = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    plain.load_state_dict(
        {k: v for k, v in conv.state_dict().items() if k != 'identity'}
    )
    torch.testing.assert_close(conv(x), x + plain(x))
    assert not conv.identity.requires_grad


@pytest.mark.parametrize('size', [(8, 8), (5, 7), (1, 1)])
@pytest.mark.parametrize('layer_scale', [None, 0.1])
def test_block_keeps_the_shape_and_trains(size, layer_scale):
    block = DAMambaBlock(
        16, head_dim=8, mlp_ratio=2, layer_scale=layer_scale
    ).eval()
    x = torch.randn(2, 16, *size)
    out = block(x)
    assert out.shape == x.shape and out.isfinite().all()
    (out * torch.randn_like(out)).sum().backward()
    untrained = untrained_parameters(block)
    # On one pixel, most taps of the convolutions see the border alone, and
    # the state has no past for A to act on.
    if size != (1, 1):
        assert untrained == []


def test_layer_scale_weighs_both_branches():
    x = torch.randn(1, 16, 6, 6)
    block = DAMambaBlock(16, layer_scale=0.0).eval()
    torch.testing.assert_close(block(x), block.pos_embed(x))


def test_block_is_registered_and_normalises_as_told():
    block = MODELS.build(
        dict(
            type='DAMambaBlock',
            channels=16,
            norm_cfg=dict(type='LN2d', eps=1e-6),
            drop_path=0.1,
        )
    )
    assert isinstance(block.norm2, nn.LayerNorm)
    assert block.drop_path.drop_prob == 0.1
    stage = MODELS.build(
        dict(
            type='VSSBackbone',
            arch=dict(channels=16, depths=(1,)),
            block=dict(type='DAMambaBlock'),
            out_indices=(0,),
        )
    ).eval()
    (out,) = stage(torch.randn(1, 3, 16, 16))
    assert out.shape == (1, 16, 4, 4)


def test_compiled_block_gives_the_same():
    block = DAMambaBlock(16).eval()
    x = torch.randn(1, 16, 6, 6)
    compiled = torch.compile(block, backend='eager', fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), block(x))


def test_other_devices_wait_for_the_check_in_anomaly_mode_alone():
    das = DynamicAdaptiveScan(16).to('meta')
    x = torch.empty(1, 16, 4, 5, device='meta')
    # A meta tensor has no values: whoever reads one raises.
    assert das(x, query=x).shape == x.shape
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        with pytest.raises((RuntimeError, NotImplementedError)):
            das(x, query=x)
