import pytest
import torch
import torch.nn as nn

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


def watched(module):
    """The context of a hook, with which all layers run by themselves."""
    return module.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize('layout', ('contiguous_format', 'channels_last'))
@pytest.mark.parametrize('bias', (None, False, True))
def test_multiplied_weights_give_what_the_layers_give(bias, layout):
    """Output and gradients, with a convolution behind or without."""
    torch.manual_seed(0)
    gro = GlobalReoptimization(channels=8, latent_channels=5).double()
    then = None if bias is None else nn.Conv2d(8, 3, 1, bias=bias).double()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64).contiguous(
        memory_format=getattr(torch, layout)
    )
    structure = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    inputs = [x.requires_grad_(), structure.requires_grad_()]
    inputs += gro.parameters()
    if then is not None:
        inputs += then.parameters()

    fast = gro(x, structure, then=then)
    with watched(gro.similarity):
        slow = gro(x, structure, then=then)
    dy = torch.randn_like(slow)
    assert not torch.equal(fast, slow)  # two ways, or the test is void
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(
        torch.autograd.grad(fast, inputs, dy),
        torch.autograd.grad(slow, inputs, dy),
    )


@pytest.mark.parametrize(
    'name', ('project_feature', 'project_edges', 'similarity.1', 'then')
)
def test_hooks_see_their_layers(name):
    gro = GlobalReoptimization(channels=8)
    then = nn.Conv2d(8, 3, 1)
    seen = []
    layer = then if name == 'then' else gro.get_submodule(name)
    with layer.register_forward_hook(lambda *args: seen.append(args[2])):
        gro(torch.randn(1, 8, 4, 4), torch.randn(1, 3, 4, 4), then=then)
    assert len(seen) == 1


@pytest.mark.parametrize(
    'then',
    (
        nn.Conv2d(8, 3, 3, padding=1),
        nn.Conv2d(8, 4, 1, groups=2),
        nn.Conv2d(8, 3, 1, padding=1),
        nn.Sequential(nn.Conv2d(8, 3, 1), nn.ReLU()),
    ),
)
def test_any_other_layer_behind_it_runs_as_it_is(then):
    gro = GlobalReoptimization(channels=8)
    x, structure = torch.randn(1, 8, 4, 4), torch.randn(1, 3, 4, 4)
    expected = then(gro(x, structure))
    torch.testing.assert_close(gro(x, structure, then=then), expected)
