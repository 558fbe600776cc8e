import math

import pytest
import torch

from mmseg_crackssm.ops import adaptive_sample

SIZES = ((5, 7), (8, 8), (1, 6), (4, 1), (1, 1))


def sample_by_loops(x, offset):
    """The definition, one number at a time."""
    batch, channels, height, width = x.shape
    per_group = channels // (offset.shape[1] // 2)
    out = torch.zeros_like(x)
    for b in range(batch):
        for c in range(channels):
            group = c // per_group
            for h in range(height):
                for w in range(width):
                    px = w + float(offset[b, 2 * group, h, w])
                    py = h + float(offset[b, 2 * group + 1, h, w])
                    out[b, c, h, w] = bilinear(x[b, c], px, py)
    return out


def bilinear(plane, px, py):
    total = 0.0
    for row in (math.floor(py), math.floor(py) + 1):
        for column in (math.floor(px), math.floor(px) + 1):
            inside = 0 <= row < plane.shape[0] and (
                0 <= column < plane.shape[1]
            )
            if inside:
                weight = (1 - abs(py - row)) * (1 - abs(px - column))
                total += weight * float(plane[row, column])
    return total


def make(size, groups=2, batch=2, dtype=torch.float64, scale=2.0):
    x = torch.randn(batch, 3 * groups, *size, dtype=dtype)
    return x, scale * torch.randn(batch, 2 * groups, *size, dtype=dtype)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('groups', (1, 3))
def test_equals_loops(size, groups):
    x, offset = make(size, groups=groups)
    expected = sample_by_loops(x, offset)
    out = adaptive_sample(x, offset)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    out = adaptive_sample(x.float(), offset.float())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected.float(), rtol=0, atol=1e-5)


def test_channels_last_memory_and_float_offsets_of_a_double_map():
    x, offset = make((6, 5))
    expected = adaptive_sample(x, offset.float().double())
    last = torch.channels_last
    out = adaptive_sample(
        x.to(memory_format=last), offset.float().to(memory_format=last)
    )
    assert torch.equal(out, expected)


@pytest.mark.parametrize('size', ((16, 8), (15, 9)))
def test_whole_pixels_shift_the_map(size):
    x, offset = make(size, groups=1)
    offset[:, 0], offset[:, 1] = 2, -1
    expected = torch.zeros_like(x)
    expected[:, :, 1:, :-2] = x[:, :, :-1, 2:]
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        out = adaptive_sample(x.to(dtype), offset.to(dtype))
        torch.testing.assert_close(
            out, expected.to(dtype), rtol=0, atol=tolerance
        )


def test_no_offset_is_the_identity():
    x, offset = make((16, 32), dtype=torch.float32)
    assert torch.equal(adaptive_sample(x, torch.zeros_like(offset)), x)


@pytest.mark.parametrize('far', (100.0, -100.0, 1e30, -1e30))
def test_zero_outside(far):
    x, offset = make((5, 7), dtype=torch.float32)
    x.requires_grad_()
    offset = torch.full_like(offset, far).requires_grad_()
    out = adaptive_sample(x, offset)
    assert not out.any()
    out.sum().backward()
    assert not x.grad.any() and not offset.grad.any()


@pytest.mark.parametrize('bad', (float('nan'), float('inf')))
@pytest.mark.parametrize('width', (5, 16))
def test_no_number_without_a_place(bad, width):
    x, offset = make((4, width), groups=1, dtype=torch.float32)
    offset[1, 0, 2, 3] = bad
    expected = torch.zeros(2, 3, 4, width, dtype=torch.bool)
    expected[1, :, 2, 3] = True
    assert torch.equal(adaptive_sample(x, offset).isnan(), expected)


def test_the_border_fades_out():
    """Half a pixel outside is half of the border's value."""
    x, offset = torch.ones(1, 1, 3, 4), torch.zeros(1, 2, 3, 4)
    offset[:, 0] = 0.5
    expected = torch.tensor([1, 1, 1, 0.5]).expand(3, 4)
    out = adaptive_sample(x, offset)[0, 0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('size', ((3, 4), (1, 3)))
def test_gradients(size):
    x, offset = make(size, groups=2, batch=1)
    # Away from whole pixels, where the derivative jumps.
    offset = offset.floor() + 0.2 + 0.6 * torch.rand_like(offset)
    assert torch.autograd.gradcheck(
        adaptive_sample, (x.requires_grad_(), offset.requires_grad_())
    )


@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16))
def test_coordinates_are_float32_under_autocast(dtype):
    x, offset = make((4, 300), dtype=torch.float32)
    expected = adaptive_sample(x.to(dtype).float(), offset.to(dtype).float())
    with torch.autocast('cpu', dtype=dtype):
        out = adaptive_sample(x.to(dtype), offset.to(dtype))
    assert out.dtype == torch.float32
    # In half precision a coordinate near 300 is off by up to one pixel.
    assert torch.equal(out, expected)


def test_gradients_keep_the_dtype_of_the_inputs():
    x, offset = make((4, 5))
    x = x.bfloat16().requires_grad_()
    offset = offset.bfloat16().requires_grad_()
    adaptive_sample(x, offset).sum().backward()
    assert x.grad.dtype == offset.grad.dtype == torch.bfloat16


def test_memory_is_linear():
    """No tensor saved for the backward outgrows the map."""
    x, offset = make((16, 24), groups=4, dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda x: x
    ):
        adaptive_sample(x.requires_grad_(), offset.requires_grad_())
    assert saved and max(saved) <= x.numel()


def test_compiles_to_one_graph():
    x, offset = make((6, 5), dtype=torch.float32)
    compiled = torch.compile(adaptive_sample, backend='eager', fullgraph=True)
    assert torch.equal(compiled(x, offset), adaptive_sample(x, offset))


@pytest.mark.parametrize(
    ('shape', 'offset_shape', 'message'),
    [
        ((1, 4, 5, 5), (1, 4, 5, 6), 'of its size'),
        ((2, 4, 5, 5), (1, 4, 5, 5), 'of its size'),
        ((4, 5, 5), (4, 5, 5), 'of its size'),
        ((1, 4, 5, 5), (1, 3, 5, 5), 'dx and dy'),
        ((1, 4, 5, 5), (1, 0, 5, 5), 'dx and dy'),
        ((1, 4, 5, 5), (1, 6, 5, 5), 'divides the 4 channels'),
        ((1, 4, 0, 5), (1, 4, 0, 5), 'map of pixels'),
    ],
)
def test_shapes_that_do_not_fit(shape, offset_shape, message):
    with pytest.raises(ValueError, match=message):
        adaptive_sample(torch.zeros(shape), torch.zeros(offset_shape))
