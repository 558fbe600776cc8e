import pytest
import torch

from checks import untrained_parameters
from mmseg_crackssm.models.layers.direction_map import coordinate_channels
from mmseg_crackssm.models.layers.dpsm import DPSM, AdaptiveTokenReordering
from mmseg_crackssm.ops import (
    adaptive_sample,
    gather_tokens,
    scan_order,
    scatter_tokens,
)

CHANNELS = (8, 12, 16, 20)


def feature_maps(height=40, width=56, batch=2):
    return [
        torch.randn(
            batch, c, -(-height // 2 ** (i + 2)), -(-width // 2 ** (i + 2))
        )
        for i, c in enumerate(CHANNELS)
    ]


def test_shapes_and_gradients():
    neck = DPSM(CHANNELS, d_state=4)
    inputs = feature_maps()
    *levels, direction_map = neck(inputs)
    assert [x.shape for x in levels] == [x.shape for x in inputs]
    assert direction_map.shape == (2, 4, *inputs[3].shape[-2:])
    assert levels[3] is inputs[3]
    sum(
        (x * torch.randn_like(x)).sum() for x in (*levels, direction_map)
    ).backward()
    assert untrained_parameters(neck) == []


@pytest.mark.parametrize('size', [(33, 47), (1, 5), (97, 64)])
def test_any_size(size):
    neck = DPSM(CHANNELS, d_state=2).eval()
    inputs = feature_maps(*size, batch=1)
    assert [x.shape for x in neck(inputs)[:4]] == [x.shape for x in inputs]


def test_sort_key_gets_no_gradient():
    level = AdaptiveTokenReordering(8, d_state=2)
    direction_map = torch.randn(1, 4, 2, 2, requires_grad=True)
    level(torch.randn(1, 8, 6, 6), direction_map).sum().backward()
    assert direction_map.grad is None


def test_order_sorts_by_intensity_and_keeps_the_snake_on_ties():
    level = AdaptiveTokenReordering(8, d_state=2)
    direction_map = torch.randint(0, 3, (2, 4, 5, 7)).float()
    order = level.token_order(direction_map, (5, 7))
    for b in range(2):
        for k, name in enumerate(level.snakes):
            snake = scan_order(name, 5, 7).tolist()
            key = direction_map[b, k].flatten().tolist()
            expected = sorted(snake, key=lambda i: -key[i])  # stable
            assert order[b, k].tolist() == expected


def test_without_reordering_the_map_does_not_matter():
    level = AdaptiveTokenReordering(8, d_state=2, scan='snake').eval()
    x = torch.randn(1, 8, 6, 5)
    first, second = (level(x, torch.randn(1, 4, 2, 2)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ('das', 'plain'), [('das', 'snake'), ('das+atr', 'atr')]
)
def test_das_begins_as_the_scan_without_it(das, plain):
    """Offsets of zero read each pixel where it is."""
    layers = [
        AdaptiveTokenReordering(8, d_state=2, scan=scan, head_dim=4).eval()
        for scan in (das, plain)
    ]
    missing = layers[0].load_state_dict(layers[1].state_dict(), strict=False)
    assert all(name.startswith('das.') for name in missing.missing_keys)
    assert missing.unexpected_keys == []
    x, direction_map = torch.randn(2, 8, 6, 5), torch.randn(2, 4, 2, 2)
    first, second = (layer(x, direction_map) for layer in layers)
    assert torch.allclose(first, second, rtol=0, atol=1e-5)
    torch.nn.init.normal_(layers[0].das.offset.weight)
    assert not torch.allclose(layers[0](x, direction_map), second, atol=1e-2)


def test_das_samples_what_the_sequences_read():
    """A level with DAS is the plain level on the sampled map."""
    level = AdaptiveTokenReordering(8, d_state=2, scan='das', head_dim=4)
    level.eval()
    torch.nn.init.normal_(level.das.offset.weight)
    x = torch.randn(1, 8, 6, 5)
    normed = level.norm(x)
    sampled = adaptive_sample(normed, level.das.offsets(normed))
    order = level.token_order(torch.zeros(1, 4, 1, 1), (6, 5))
    tokens = gather_tokens(sampled.flatten(2)[:, None], order)
    ys = scatter_tokens(level.s6(tokens), order)
    expected = x + level.se(level.fuse(ys.flatten(1, 2).unflatten(-1, (6, 5))))
    assert torch.allclose(
        level(x, torch.randn(1, 4, 2, 2)), expected, atol=1e-5
    )


@pytest.mark.parametrize('scan', ['das', 'das+atr'])
def test_das_learns(scan):
    neck = DPSM(CHANNELS, d_state=2, scan=scan, head_dim=4)
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.1)
    inputs = feature_maps()
    for _ in range(2):  # offsets of zero pass nothing on to what makes them
        optimizer.zero_grad()
        sum((x * torch.randn_like(x)).sum() for x in neck(inputs)).backward()
        optimizer.step()
    assert untrained_parameters(neck) == []


def test_offsets_that_are_nan_name_the_level():
    neck = DPSM(CHANNELS, d_state=2, scan='das', head_dim=4)
    torch.nn.init.constant_(neck.levels[1].das.offset.bias, torch.nan)
    with pytest.raises(ValueError, match=r"'levels\.1\.das'"):
        neck(feature_maps())


def test_reordering_changes_the_result():
    level = AdaptiveTokenReordering(8, d_state=2).eval()
    x = torch.randn(1, 8, 6, 5)
    first, second = (level(x, torch.randn(1, 4, 6, 5)) for _ in range(2))
    assert not torch.allclose(first, second)


def test_a_pixel_sees_only_tokens_before_it():
    """The scan is causal along the sorted sequence."""
    level = AdaptiveTokenReordering(8, directions=('horizontal',), d_state=2)
    level.eval()
    # SE pools over all pixels; without it only the scan mixes them.
    level.se = torch.nn.Identity()
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    direction_map = torch.randn(1, 1, 4, 4)
    order = level.token_order(direction_map, (4, 4))[0, 0]
    out = level(x, direction_map).flatten(2)
    (gradient,) = torch.autograd.grad(out[..., order[5]].sum(), x)
    seen = gradient.abs().sum(dim=1).flatten() > 0
    assert set(seen.nonzero().flatten().tolist()) == set(order[:6].tolist())


@pytest.mark.parametrize(
    'directions', [('horizontal', 'vertical'), ('diagonal', 'anti_diagonal')]
)
def test_two_directions(directions):
    neck = DPSM(CHANNELS, directions=directions, d_state=2)
    assert neck(feature_maps())[-1].shape[1] == 2


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='four levels'):
        DPSM((8, 16))
    with pytest.raises(ValueError, match='directions'):
        DPSM(CHANNELS, directions=('up',))
    with pytest.raises(ValueError, match="snake, got 'spiral'"):
        DPSM(CHANNELS, scan='spiral')
    with pytest.raises(ValueError, match='8 channels and head_dim 16'):
        DPSM(CHANNELS, scan='das')
    with pytest.raises(ValueError, match='four feature maps, got 3'):
        DPSM(CHANNELS)(feature_maps()[:3])


def test_coordinates_run_from_minus_one_to_one():
    channels = coordinate_channels(torch.zeros(2, 5, 3, 5))
    assert channels.shape == (2, 2, 3, 5)
    assert channels[1, 0, 1].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert channels[1, 1, :, 2].tolist() == [-1, 0, 1]
    assert coordinate_channels(torch.zeros(1, 1, 1, 1)).abs().max() == 0
