import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_crackssm.ops import selective_scan
from mmseg_crackssm.ops.selective_scan import chunked, tiles


class AllocationMeter(TorchDispatchMode):
    """Counts operator calls and the peak of the bytes they hold."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.live = 0
        self.peak = 0
        self._known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        known = {
            x.untyped_storage().data_ptr()
            for x in tree_leaves((args, kwargs))
            if isinstance(x, torch.Tensor)
        }
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self._track(x.untyped_storage(), known)
        return out

    def _track(self, storage, known):
        address = storage.data_ptr()
        if address in self._known or address in known:
            return
        self._known.add(address)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, address, storage.nbytes())

    def _free(self, address, size):
        self._known.discard(address)
        self.live -= size


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of 4 chunks of 16 steps for one batch of 4 channels, N = 2."""
    monkeypatch.setattr(tiles, 'STEP_ELEMENTS', 32)
    monkeypatch.setattr(tiles, 'MIN_CHUNKS', 1)


def run(inputs, save_states):
    B, C = inputs['B'], inputs['C']
    return chunked.forward(
        inputs['u'],
        inputs['delta'],
        inputs['A'],
        B,
        C,
        inputs['D'],
        inputs['delta_bias'],
        True,
        save_states,
    )


def run_backward(inputs, states):
    return chunked.backward(
        inputs['u'],
        *inputs.values(),
        True,
        states,
    )


# Lengths around the borders of chunks (16) and tiles (64); also one chunk
# per tile, where the state goes straight from tile to tile.
@pytest.mark.parametrize('step_elements', (1, 32))
@pytest.mark.parametrize('length', (1, 15, 16, 17, 63, 64, 65, 129, 200))
def test_borders_of_chunks_and_tiles(
    monkeypatch, make_inputs, length, step_elements
):
    monkeypatch.setattr(tiles, 'STEP_ELEMENTS', step_elements)
    monkeypatch.setattr(tiles, 'MIN_CHUNKS', 1)
    inputs = make_inputs(
        batch=1,
        length=length,
        d_state=2,
        dtype=torch.float64,
        requires_grad=True,
    )
    weight = torch.randn(1, 4, length, dtype=torch.float64)
    results = []
    for backend in ('torch', 'reference'):
        y = selective_scan(**inputs, delta_softplus=True, backend=backend)
        grads = torch.autograd.grad((y * weight).sum(), inputs.values())
        results.append((y, *grads))
    for name, got, expected in zip(('y', *inputs), *results, strict=True):
        torch.testing.assert_close(
            got, expected, rtol=1e-11, atol=1e-11, msg=name
        )


def test_states_have_the_announced_shape(make_inputs, small_tiles):
    inputs = make_inputs(batch=1, length=130, d_state=2)
    _, states = run(inputs, save_states=True)
    shape = chunked.states_shape(
        batch=1, dim=4, length=130, d_state=2, groups=2, device_type='cpu'
    )
    assert states.shape == shape == (3, 1, 2, 2, 2)
    # Each tile starts where the shorter scan ended.
    assert states[0].abs().max() == 0
    assert states[1].abs().min() > 0


def test_no_states_unless_asked(make_inputs):
    _, states = run(make_inputs(), save_states=False)
    assert states.numel() == 0


@pytest.mark.parametrize('direction', ('forward', 'backward'))
def test_memory_is_bounded_and_time_linear(
    make_inputs, small_tiles, direction
):
    extra, calls = [], []
    for length in (640, 5120):
        inputs = make_inputs(batch=1, length=length, d_state=2)
        _, states = run(inputs, save_states=True)
        with AllocationMeter() as meter:
            if direction == 'forward':
                out = run(inputs, save_states=False)
            else:
                out = run_backward(inputs, states)
        outputs = sum(
            x.numel() * 4 for x in out if isinstance(x, torch.Tensor)
        )
        extra.append(meter.peak - outputs)
        calls.append(meter.calls)
    assert 0 < extra[1] <= extra[0]
    assert calls[1] == pytest.approx(8 * calls[0], rel=0.05)


@pytest.mark.parametrize('length', (5, 196, 784, 3136, 50176))
def test_calls_on_a_gpu_are_bounded(length):
    """In proportion to sqrt(L) at most, however wide a step is."""
    for exponent in range(4, 26):
        steps, chunks = tiles.tile_size(
            width=2**exponent, length=length, device_type='cuda'
        )
        count = -(-length // (steps * chunks))
        assert count <= length**0.5
        # Tiles grow no further than that bound asks for.
        portion = max(tiles.GPU_STEP_ELEMENTS, 2**exponent)
        assert chunks == 1 or (
            chunks * 2**exponent <= portion
            or (steps * chunks // 2) ** 2 < length
        )


def test_wide_steps_run_once_on_a_cpu():
    def tile_size(width):
        return tiles.tile_size(width=width, length=3136, device_type='cpu')

    assert tile_size(width=16 * 256 * 16) == (16, 1)
    assert tile_size(width=256 * 16) == (16, 64)
    assert tile_size(width=16) == (16, 196)


def test_growing_states_do_not_poison_idle_channels(make_inputs):
    # A > 0: over a chunk the decay overflows, yet 0 stays 0.
    inputs = make_inputs(batch=1, length=64)
    inputs['A'] = torch.full_like(inputs['A'], 10.0)
    inputs['u'] = torch.zeros_like(inputs['u'])
    y = selective_scan(**inputs, delta_softplus=True, backend='torch')
    assert y.abs().max() == 0


@pytest.mark.parametrize('name', ('u', 'A'))
def test_padding_does_not_spread_what_is_not_finite(make_inputs, name):
    # 37 steps are padded to three chunks of 16.
    inputs = make_inputs(dtype=torch.float64)
    if name == 'u':
        inputs['u'][:, 0, -1] = torch.inf
    else:
        inputs['A'][0, 0] = -torch.inf
    results = []
    for backend in ('torch', 'reference'):
        leaves = {k: x.clone().requires_grad_() for k, x in inputs.items()}
        y = selective_scan(**leaves, delta_softplus=True, backend=backend)
        grads = torch.autograd.grad(y.sum(), leaves.values())
        results.append((y, *grads))
    for key, got, expected in zip(('y', *inputs), *results, strict=True):
        finite = expected.isfinite()
        assert torch.equal(got.isfinite(), finite), key
        torch.testing.assert_close(got[finite], expected[finite], msg=key)


def test_strides_do_not_matter(make_inputs):
    inputs = make_inputs()
    expected = selective_scan(**inputs, delta_softplus=True, backend='torch')
    strided = {
        name: x.transpose(0, -1).contiguous().transpose(0, -1)
        for name, x in inputs.items()
    }
    assert strided['u'].stride(-1) != 1
    y = selective_scan(**strided, delta_softplus=True, backend='torch')
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected)
