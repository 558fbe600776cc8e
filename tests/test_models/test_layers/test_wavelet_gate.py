import pytest
import torch

from checks import untrained_parameters
from mmseg_crackssm.models.layers import WaveletGate


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
