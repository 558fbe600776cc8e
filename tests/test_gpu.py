"""What runs on CUDA gives what it gives on the CPU.

Here and not beside each module's tests, so that ``pytest -m gpu`` on a
borrowed machine has one file to look at.
"""

import pytest
import torch
from mmseg.registry import MODELS, OPTIM_WRAPPERS

from checks import label_samples
from mmseg_crackssm.models import DPSM
from mmseg_crackssm.ops import (
    SCAN_ORDERS,
    available_backends,
    dwt2,
    inverse_scan_order,
    scan_order,
    selective_scan,
)

pytestmark = pytest.mark.gpu
DEVICE = 'cuda'


@pytest.mark.parametrize('get', (scan_order, inverse_scan_order))
def test_scan_orders(get):
    for name in SCAN_ORDERS:
        for size in ((5, 7), (1, 4), (32, 32)):
            order = get(name, *size, device=DEVICE)
            assert order.device.type == DEVICE
            assert torch.equal(order.cpu(), get(name, *size)), (name, size)


@pytest.mark.parametrize('wavelet', ('haar', 'db4'))
def test_dwt2(wavelet):
    x = torch.randn(2, 3, 33, 46)
    # Nor does autocast make it less precise.
    with torch.autocast(DEVICE, dtype=torch.float16):
        bands = dwt2(x.to(DEVICE), wavelet=wavelet)
    for band, expected in zip(bands, dwt2(x, wavelet=wavelet), strict=True):
        torch.testing.assert_close(band.cpu(), expected, rtol=0, atol=1e-6)


def test_dpsm_forward_and_backward():
    # In float64: rounding must not change the order of the tokens.
    neck = DPSM((8, 12, 16, 20), d_state=4).double()
    maps = [
        torch.randn(2, c, 40 // 2**i, 28 // 2**i, dtype=torch.float64)
        for i, c in enumerate((8, 12, 16, 20))
    ]
    weights = [torch.randn_like(x) for x in maps]
    results = []
    for device in ('cpu', DEVICE):
        neck.zero_grad()
        inputs = [x.to(device, copy=True).requires_grad_() for x in maps]
        outs = neck.to(device)(inputs)
        sum(
            (x * weight.to(device)).sum()
            for x, weight in zip(outs[:4], weights, strict=True)
        ).backward()
        results.append(
            [
                *(x.detach().cpu() for x in outs),
                *(x.grad.cpu() for x in inputs[:3]),
                *(
                    p.grad.cpu().clone()
                    for p in neck.levels.parameters()
                    if p.grad is not None
                ),
            ]
        )
    assert len(results[0]) > 20
    torch.testing.assert_close(results[1], results[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize('dtype', ('float16', 'bfloat16'))
def test_one_step_in_mixed_precision(dtype):
    widths = (8, 16, 32, 64)
    arch = dict(channels=8, depths=(1, 1, 1, 1), d_state=2)
    model = MODELS.build(
        dict(
            type='ImageGuidedEncoderDecoder',
            backbone=dict(
                type='CrackSSMBackbone',
                encoder=dict(type='VSSBackbone', arch=arch),
                dpsm=dict(in_channels=widths, d_state=2, direction_channels=8),
            ),
            decode_head=dict(
                type='CrackSSMHead',
                in_channels=(*widths, 3),
                channels=8,
                level_channels=(16, 8, 8),
            ),
            auxiliary_head=dict(type='DirectionHead'),
            test_cfg=dict(mode='whole'),
        )
    ).to(DEVICE)
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='AmpOptimWrapper',
            dtype=dtype,
            # A dynamic scale skips its first steps.
            loss_scale=128.0,
            optimizer=torch.optim.SGD(model.parameters(), lr=1e-3),
        )
    )
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    label = (torch.rand(2, 64, 64) > 0.8).long()
    image = torch.randn(2, 3, 64, 64)
    with wrapper.optim_context(model):
        losses = model.loss(image.to(DEVICE), label_samples(label.to(DEVICE)))
    assert all(loss.isfinite() for loss in losses.values())
    wrapper.update_params(sum(v for k, v in losses.items() if 'loss' in k))
    after = dict(model.named_parameters())
    assert all(value.isfinite().all() for value in after.values())
    same = [k for k, v in before.items() if torch.equal(v, after[k])]
    assert len(same) < len(before) // 4, same


# (B, D, L, N, G): the encoder's four levels at 448 px, a long sequence whose
# tiles run at once, and sizes that divide by nothing.
SCANS = (
    (2, 256, 12544, 16, 4),
    (16, 512, 784, 16, 4),
    (2, 192, 3136, 1, 1),
    (1, 16, 50176, 16, 1),
    (3, 30, 197, 3, 2),
    (2, 12, 1, 8, 3),
)


def scan_inputs(batch, dim, length, d_state, groups):
    generator = torch.Generator(DEVICE).manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, device=DEVICE)

    return {
        'u': draw(batch, dim, length),
        'delta': draw(batch, dim, length) - 2,
        'A': -torch.exp(draw(dim, d_state)),
        'B': draw(batch, groups, d_state, length),
        'C': draw(batch, groups, d_state, length),
        'D': draw(dim),
        'delta_bias': draw(dim),
    }


def scan_and_gradients(inputs, backend):
    leaves = {k: x.detach().requires_grad_() for k, x in inputs.items()}
    y = selective_scan(**leaves, delta_softplus=True, backend=backend)
    # Weights that differ along time, the same for every backend.
    dy = torch.cos(torch.arange(y.numel(), device=DEVICE)).view_as(y)
    grads = torch.autograd.grad(y, leaves.values(), dy.to(y.dtype))
    return {'y': y.detach(), **dict(zip(leaves, grads, strict=True))}


def assert_scans_agree(got, expected, tolerance):
    for name, x in got.items():
        scale = expected[name].double().abs().max()
        error = (x.double() - expected[name].double()).abs().max()
        assert error <= tolerance * scale, (name, (error / scale).item())


def require_scan(backend):
    if backend not in available_backends(DEVICE):
        pytest.skip(f'no scan backend {backend!r} here')


@pytest.mark.parametrize('shape', SCANS)
def test_triton_scan_against_float64(shape):
    require_scan('triton')
    inputs = scan_inputs(*shape)
    exact = {name: x.double() for name, x in inputs.items()}
    expected = scan_and_gradients(exact, backend='torch')
    got = scan_and_gradients(inputs, backend='triton')
    assert_scans_agree(got, expected, tolerance=1e-5)


@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
def test_triton_scan_of_half_inputs(dtype):
    require_scan('triton')
    inputs = scan_inputs(2, 64, 1000, 16, 2)
    for name in ('u', 'delta', 'B', 'C'):
        inputs[name] = inputs[name].to(dtype)
    exact = {name: x.double() for name, x in inputs.items()}
    expected = scan_and_gradients(exact, backend='torch')
    got = scan_and_gradients(inputs, backend='triton')
    assert got['y'].dtype == got['B'].dtype == dtype
    # dy, too, is rounded.
    assert_scans_agree(got, expected, tolerance=2 * torch.finfo(dtype).eps)


def test_triton_scan_repeats_bit_by_bit():
    require_scan('triton')
    inputs = scan_inputs(2, 256, 3136, 16, 4)
    first, second = (scan_and_gradients(inputs, 'triton') for _ in range(2))
    for name, x in first.items():
        assert torch.equal(x, second[name]), name


@pytest.mark.parametrize('shape', SCANS)
def test_triton_scan_against_mamba_ssm(shape):
    require_scan('triton')
    require_scan('mamba_ssm')
    inputs = scan_inputs(*shape)
    expected = scan_and_gradients(inputs, backend='mamba_ssm')
    got = scan_and_gradients(inputs, backend='triton')
    assert_scans_agree(got, expected, tolerance=2e-5)
