import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from native_scan import needs_kernel
from operator_checks import Recorder

from checks import untrained_parameters
from mmseg_crackssm.models.layers import WaveletGate
from mmseg_crackssm.models.layers.pointwise import PointwiseConv2d
from mmseg_crackssm.models.layers.wavelet_gate import pixels_read
from mmseg_crackssm.ops.selective_scan.backends import ENVIRONMENT_VARIABLE


@pytest.mark.parametrize('size', [(6, 6), (7, 11)])
def test_shape_and_gradients(size):
    gate = WaveletGate()
    # The bands may have another size.
    out = gate(torch.randn(2, 4, *size), torch.randn(2, 9, 10, 13))
    assert out.shape == (2, 4, *size)
    out.square().sum().backward()
    # A convolution's bias has no effect before a batch norm.
    assert set(untrained_parameters(gate)) <= {'gates.0.bias'}


@pytest.mark.parametrize('logit', [-30.0, 0.0, 30.0])
def test_gate_amplifies_and_never_erases(logit):
    """The value by hand: x times one plus the gate."""
    gate = WaveletGate(image_channels=1, channels=2).eval()
    with torch.no_grad():
        last = gate.gates[3]
        last.weight.zero_()
        last.bias.fill_(logit)
    x = torch.randn(1, 4, 5, 5)
    out = gate(x, torch.randn(1, 3, 3, 3))
    factor = 1 + torch.tensor(logit).sigmoid()
    torch.testing.assert_close(out, factor * x)


def test_each_band_has_its_own_gate():
    gate = WaveletGate(image_channels=1, channels=2).eval()
    bands = torch.randn(1, 3, 4, 4)
    before = gate.gates(bands)
    bands[:, 1] += 1
    changed = (gate.gates(bands) != before).any(-1).any(-1)[0]
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize('layout', ('contiguous_format', 'channels_last'))
@pytest.mark.parametrize(
    'size',
    [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3), (8, 24), (11, 16), (7, 5)],
)
def test_pixels_that_are_not_read_need_no_gate(size, layout):
    torch.manual_seed(0)
    gate = WaveletGate().eval()
    gate.gates[1].running_mean.normal_()
    bands = torch.randn(2, 9, 32, 48).contiguous(
        memory_format=getattr(torch, layout)
    )
    x = torch.randn(2, 4, *size)
    seen = []
    # Who watches the gates sees all of them.
    with gate.gates[-1].register_forward_hook(
        lambda *args: seen.append(args[2])
    ):
        expected = gate(x, bands)
    assert seen[0].shape == (2, 3, 32, 48)
    torch.testing.assert_close(gate(x, bands), expected)


def test_how_many_pixels_are_read():
    bands = torch.randn(1, 9, 32, 48)
    shapes = {
        size: pixels_read(bands, size).shape[-2:]
        for size in ((32, 48), (16, 24), (8, 12), (4, 6), (8, 24), (2, 4))
    }
    assert shapes == {
        (32, 48): (32, 48),
        (16, 24): (32, 48),
        (8, 12): (16, 24),
        (4, 6): (8, 12),
        (8, 24): (32, 48),
        (2, 4): (32, 48),
    }


def test_statistics_of_a_batch_are_those_of_the_whole_map():
    gate = WaveletGate().train()
    bands = torch.randn(2, 9, 32, 48)
    gate(torch.randn(2, 4, 4, 6), bands)
    mean = gate.gates[0](bands).mean(dim=(0, 2, 3))
    torch.testing.assert_close(gate.gates[1].running_mean, 0.1 * mean)


@pytest.mark.parametrize(
    ('index', 'layer'),
    [
        (0, nn.Conv2d(9, 24, 3, padding=1, groups=3)),
        (1, nn.GroupNorm(3, 24)),
        (2, nn.GELU()),
        (3, nn.Conv2d(24, 3, 3, padding=1, groups=3)),
        (3, PointwiseConv2d(24, 3)),
        (3, PointwiseConv2d(24, 3, groups=3, bias=False)),
        (4, nn.Hardsigmoid()),
    ],
)
def test_other_layers_run_as_they_are(index, layer):
    gate = WaveletGate().eval()
    gate.gates[index] = layer
    bands, x = torch.randn(1, 9, 32, 48), torch.randn(1, 4, 8, 12)
    weight = gate.gates(bands).mean(dim=1, keepdim=True)
    weight = F.interpolate(weight, size=(8, 12), mode='bilinear')
    torch.testing.assert_close(gate(x, bands), x * (1 + weight))


@needs_kernel
@pytest.mark.parametrize('training', (False, True))
@pytest.mark.parametrize('size', ((32, 48), (16, 24), (8, 12), (5, 7)))
def test_kernel_is_the_layers_one_by_one(training, size, monkeypatch):
    torch.manual_seed(0)
    gate = WaveletGate().train(training)
    bands = torch.randn(2, 9, 32, 48)
    dy = torch.randn(2, 1, *size)

    def run():
        y = gate.opening(bands, size)
        gradients = torch.autograd.grad(y, list(gate.parameters()), dy)
        # In training the first bias has none but roundings.
        return y, *(gradients[2:] if training else gradients)

    with Recorder() as recorder:
        results = run()
    assert recorder.kernels() == ['mean_gate', 'mean_gate_backward']
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, 'torch')
    with Recorder() as recorder:
        expected = run()
    assert not recorder.kernels()
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-5)
