import pytest
import torch

from mmseg_crackssm.ops import (
    SCAN_ORDERS,
    SNAKE_ORDERS,
    inverse_order,
    inverse_scan_order,
    scan_order,
)

SIZES = ((1, 1), (1, 6), (5, 1), (3, 3), (4, 7), (7, 4), (2, 9), (8, 8))

# A map of 3 rows and 4 columns:
#   0 1  2  3
#   4 5  6  7
#   8 9 10 11
BY_HAND = {
    'raster': [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    'raster_t': [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
    'snake_h': [0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11],
    'snake_v': [0, 4, 8, 9, 5, 1, 2, 6, 10, 11, 7, 3],
    'snake_a': [0, 1, 4, 8, 5, 2, 3, 6, 9, 10, 7, 11],
    'snake_d': [3, 2, 7, 11, 6, 1, 0, 5, 10, 9, 4, 8],
}


@pytest.mark.parametrize('name', BY_HAND)
def test_order_by_hand(name):
    assert scan_order(name, 3, 4).tolist() == BY_HAND[name]


def test_cross_is_the_order_of_vmamba():
    height, width = 3, 4
    order = scan_order('cross', height, width)
    assert order.shape == (4, 12)
    x = torch.randn(2, 5, height, width)
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    expected = (rows, columns, rows.flip(-1), columns.flip(-1))
    for k in range(4):
        assert torch.equal(x.flatten(2)[..., order[k]], expected[k])


@pytest.mark.parametrize(('height', 'width'), SIZES)
@pytest.mark.parametrize('name', SCAN_ORDERS)
def test_order_is_a_permutation_with_its_inverse(name, height, width):
    order = scan_order(name, height, width)
    assert order.dtype == torch.int64
    identity = torch.arange(height * width).expand_as(order)
    assert torch.equal(order.sort(dim=-1).values, identity)
    inverse = inverse_scan_order(name, height, width)
    assert torch.equal(inverse, inverse_order(order))
    assert torch.equal(order.gather(-1, inverse), identity)


@pytest.mark.parametrize(('height', 'width'), SIZES)
@pytest.mark.parametrize('name', SNAKE_ORDERS)
def test_snake_moves_to_a_neighbour(name, height, width):
    order = scan_order(name, height, width)
    rows, columns = order // width, order % width
    steps = torch.stack([rows.diff(), columns.diff()]).abs()
    assert (steps.amax(0) == 1).all()
    lines = {
        'snake_h': rows,
        'snake_v': columns,
        'snake_d': columns - rows,
        'snake_a': columns + rows,
    }[name].diff()
    # Lines come one after the other; on the way to the next one, the step is
    # to a pixel that shares an edge.
    assert set(lines.abs().tolist()) <= {0, 1}
    assert len(set(lines[lines != 0].tolist())) <= 1
    assert (steps[:, lines != 0].sum(0) == 1).all()
    if name in ('snake_d', 'snake_a'):
        assert (steps[:, lines == 0] == 1).all()


@pytest.mark.parametrize('get', (scan_order, inverse_scan_order))
def test_cached_per_size_and_device(get):
    first = get('snake_d', 5, 6)
    assert get('snake_d', 5, 6, device='cpu') is first
    assert get('snake_d', 6, 5) is not first
    assert get('snake_a', 5, 6) is not first
    assert get('snake_d', 5, 6, device='meta').is_meta


def test_inverse_of_a_batch():
    order = torch.stack([torch.randperm(9) for _ in range(6)]).view(2, 3, 9)
    inverse = inverse_order(order)
    x = torch.randn(2, 3, 9)
    assert torch.equal(x.gather(-1, order).gather(-1, inverse), x)


def test_compiles_and_exports():
    class Reader(torch.nn.Module):
        def forward(self, x):
            order = scan_order('snake_d', *x.shape[-2:], device=x.device)
            return x.flatten(2)[..., order]

    x = torch.randn(1, 2, 3, 4)
    expected = x.flatten(2)[..., BY_HAND['snake_d']]
    torch._dynamo.reset()
    compiled = torch.compile(Reader(), fullgraph=True, backend='aot_eager')
    assert torch.equal(compiled(x), expected)
    program = torch.export.export(Reader(), (x,))
    assert torch.equal(program.module()(x), expected)
    # Made where it is needed, not copied there at each call.
    program = torch.export.export(Reader(), (x.to('meta'),))
    targets = [str(node.target) for node in program.graph.nodes]
    assert not [t for t in targets if t.startswith(('aten.to', 'aten._to'))]
    assert any('arange' in target for target in targets)


def test_bad_arguments():
    with pytest.raises(ValueError, match="name: .*'snake_h'.* got 'zigzag'"):
        scan_order('zigzag', 2, 2)
    with pytest.raises(ValueError, match='at least 1, got 0 and 4'):
        scan_order('raster', 0, 4)
    with pytest.raises(ValueError, match='name: '):
        inverse_scan_order('zigzag', 2, 2)
