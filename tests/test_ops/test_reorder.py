import math

import pytest
import torch

from mmseg_crackssm.ops import (
    gather_tokens,
    intensity_order,
    scatter_tokens,
)

B, K, C, L = 2, 3, 4, 7
FORMS = {
    'B C L by L': ((B, C, L), (L,)),
    'B C L by B L': ((B, C, L), (B, L)),
    'B K C L by L': ((B, K, C, L), (L,)),
    'B K C L by K L': ((B, K, C, L), (K, L)),
    'B K C L by B K L': ((B, K, C, L), (B, K, L)),
    'B 1 C L by K L': ((B, 1, C, L), (K, L)),
    'B 1 C L by B K L': ((B, 1, C, L), (B, K, L)),
    'B 1 C L by L': ((B, 1, C, L), (L,)),
}


def permutations(shape):
    return torch.rand(shape).argsort(-1)


def gather_by_loop(x, index):
    """Token by token, on a 4-D x whose K is that of the result."""
    out = torch.empty_like(x)
    index = index.expand(x.shape[0], x.shape[1], L)
    for b in range(x.shape[0]):
        for k in range(x.shape[1]):
            for i in range(L):
                out[b, k, :, i] = x[b, k, :, index[b, k, i]]
    return out


@pytest.mark.parametrize('form', FORMS)
def test_gather(form):
    x_shape, index_shape = FORMS[form]
    x, index = torch.randn(x_shape), permutations(index_shape)
    got = gather_tokens(x, index)
    if len(x_shape) == 3:
        index = index if index.dim() == 1 else index[:, None]
        expected = gather_by_loop(x[:, None], index)[:, 0]
    else:
        orders = K if K in index_shape else x_shape[1]
        expected = gather_by_loop(x.expand(-1, orders, -1, -1), index)
    assert torch.equal(got, expected)


@pytest.mark.parametrize('form', FORMS)
def test_scatter_undoes_gather(form):
    x_shape, index_shape = FORMS[form]
    x, index = torch.randn(x_shape), permutations(index_shape)
    back = scatter_tokens(gather_tokens(x, index), index)
    assert torch.equal(back, x.expand_as(back))


@pytest.mark.parametrize('function', (gather_tokens, scatter_tokens))
@pytest.mark.parametrize('form', FORMS)
def test_gradients(form, function):
    x_shape, index_shape = FORMS[form]
    x = torch.randn(x_shape, dtype=torch.float64, requires_grad=True)
    index = permutations(index_shape)
    assert torch.autograd.gradcheck(lambda x: function(x, index), (x,))


@pytest.mark.parametrize('function', (gather_tokens, scatter_tokens))
def test_wrong_shapes(function):
    with pytest.raises(ValueError, match=r'x: expected \(B, C, L\)'):
        function(torch.randn(C, L), permutations((L,)))
    for x_shape, index_shape in (
        ((B, C, L), (K, L)),
        ((B, C, L), (B, K, L)),
        ((B, K, C, L), (B, L)),
        ((B, K, C, L), (K, B, L)),
        ((B, K, C, L), (B, K, C, L)),
    ):
        with pytest.raises(ValueError, match='index: expected'):
            function(torch.randn(x_shape), permutations(index_shape))
    with pytest.raises(ValueError, match='index: expected the length of x, 7'):
        function(torch.randn(B, C, L), permutations((L - 1,)))


def test_strongest_first_and_ties_keep_their_order():
    key = torch.tensor([[0.5, 2.0, 0.5, 3.0, 2.0], [1.0] * 5])
    order = intensity_order(key)
    assert order.tolist() == [[3, 1, 4, 0, 2], [0, 1, 2, 3, 4]]


def test_many_ties_keep_their_order():
    key = torch.randint(0, 3, (2, 4, 500)).float()
    order = intensity_order(key)
    values = key.gather(-1, order)
    assert (values.diff(dim=-1) <= 0).all()
    same = values.diff(dim=-1) == 0
    assert (order.diff(dim=-1)[same] > 0).all()


@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
@pytest.mark.parametrize('threads', (1, 64))
def test_any_numbers_are_sorted_as_torch_sorts_them(
    dtype, threads, monkeypatch
):
    special = [0.0, -0.0, math.inf, -math.inf, 1e-45, -1e-45, 3e38, -3e38]
    key = torch.randn(3, 4, 200, dtype=dtype)
    key[..., 10:90:10] = torch.tensor(special, dtype=dtype)
    key[..., 11:91:10] = torch.tensor(special[::-1], dtype=dtype)
    unknown = key.clone()
    unknown[1, 2, 5] = math.nan
    unknown[1, 2, 7] = -math.nan
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    for keys in (key, unknown, key.transpose(1, 2), key[:0], key[..., :1]):
        order = intensity_order(keys)
        expected = keys.argsort(dim=-1, descending=True, stable=True)
        assert torch.equal(order, expected)


def test_a_compiled_order_holds_torchs_sort():
    seen = []

    def backend(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    key = torch.randn(2, 50)
    compiled = torch.compile(intensity_order, backend=backend, fullgraph=True)
    assert torch.equal(compiled(key), intensity_order(key))
    assert not any('intensity_argsort' in name for name in seen)


def test_sorting_carries_no_gradient():
    key = torch.randn(1, L, requires_grad=True)
    x = torch.randn(1, C, L, requires_grad=True)
    order = intensity_order(key)
    assert not order.requires_grad
    gather_tokens(x, order).sum().backward()
    assert key.grad is None
    assert torch.equal(x.grad, torch.ones_like(x))
