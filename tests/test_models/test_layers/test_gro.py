import pytest
import torch

from checks import untrained_parameters
from mmseg_crackssm.models.layers import GlobalReoptimization


@pytest.mark.parametrize('size', [(6, 6), (7, 11)])
def test_shape_and_gradients(size):
    gro = GlobalReoptimization(channels=4)
    # The structure map may have another size.
    out = gro(torch.randn(2, 4, *size), torch.randn(2, 3, 5, 8))
    assert out.shape == (2, 4, *size)
    out.square().sum().backward()
    assert untrained_parameters(gro) == []


def test_formula_by_hand():
    """F = (1 - S) F_out + S Proj(I_hf), S = sigmoid(Proj(X Y))."""
    gro = GlobalReoptimization(channels=1, image_channels=1)
    with torch.no_grad():
        for parameter in gro.parameters():
            parameter.zero_()
        gro.project_feature.weight.fill_(2.0)
        gro.project_structure.weight.fill_(0.5)
        gro.similarity[0].weight.fill_(1.0)
        gro.project_edges.weight.fill_(10.0)
    x = torch.tensor([3.0, -3.0, 3.0]).view(1, 1, 1, 3)
    structure = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3)
    # X Y = 2 F_out * 0.5 I_hf: 3, -3 and 0.
    s = 1 / (1 + torch.tensor([-3.0, 3.0, 0.0]).exp())
    edges = torch.tensor([10.0, 10.0, 0.0])
    expected = (1 - s) * x.flatten() + s * edges
    torch.testing.assert_close(gro(x, structure).flatten(), expected)
