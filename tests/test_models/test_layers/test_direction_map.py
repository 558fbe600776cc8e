import pytest
import torch

from checks import untrained_parameters
from mmseg_crackssm.models.layers import DirectionMap
from mmseg_crackssm.models.layers.direction_map import (
    DIRECTIONS,
    check_directions,
)


@pytest.mark.parametrize('size', [(4, 4), (3, 7), (1, 1)])
def test_shape_and_gradients(size):
    module = DirectionMap(6, 5, num_directions=2)
    out = module(torch.randn(2, 6, *size))
    assert out.shape == (2, 2, *size)
    out.square().sum().backward()
    assert untrained_parameters(module) == []


def test_reads_the_coordinates_by_hand():
    """With the taps of x alone: the column of each pixel, -1 to 1."""
    module = DirectionMap(1, 1, num_directions=1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        # Channels: the map, x, y; the middle of the 3x3 kernel.
        module.coord_conv.conv.weight[0, 1, 1, 1] = 1.0
        module.project.weight.fill_(2.0)
    out = module(torch.randn(1, 1, 2, 5))
    # Through a ReLU.
    expected = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0]).expand(2, 5)
    torch.testing.assert_close(out[0, 0], expected)


def test_check_directions():
    assert check_directions(list(DIRECTIONS)) == DIRECTIONS
    for wrong in ((), ('horizontal', 'horizontal'), ('sideways',)):
        with pytest.raises(ValueError, match='anti_diagonal'):
            check_directions(wrong)
