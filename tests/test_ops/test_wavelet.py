import numpy as np
import pytest
import pywt
import torch

from mmseg_crackssm.ops import DWT_MODES, dwt2, high_bands

SIZES = ((8, 8), (7, 10), (5, 3), (2, 9), (33, 6))


def pywt_bands(x, wavelet, mode):
    approximation, details = pywt.dwt2(x.double().numpy(), wavelet, mode=mode)
    return approximation, *details


def check(x, wavelet, mode, tolerance):
    got = dwt2(x, wavelet=wavelet, mode=mode)
    expected = pywt_bands(x, wavelet, mode)
    for name, band, want in zip(
        ('LL', 'LH', 'HL', 'HH'), got, expected, strict=True
    ):
        assert band.dtype == x.dtype
        assert tuple(band.shape) == want.shape, name
        error = np.abs(band.double().numpy() - want).max()
        assert error <= tolerance * max(1, np.abs(want).max()), name


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('mode', DWT_MODES)
@pytest.mark.parametrize('wavelet', ('haar', 'db2', 'sym4', 'bior2.2'))
def test_equals_pywavelets(wavelet, mode, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    check(x, wavelet, mode, tolerance=1e-12)
    check(x.float(), wavelet, mode, tolerance=1e-6)


@pytest.mark.parametrize('mode', DWT_MODES)
@pytest.mark.parametrize('wavelet', ('db20', 'dmey', 'coif5', 'rbio6.8'))
def test_filters_longer_than_the_map(wavelet, mode):
    x = torch.randn(1, 1, 5, 12, dtype=torch.float64)
    check(x, wavelet, mode, tolerance=1e-12)


@pytest.mark.parametrize('mode', sorted(set(DWT_MODES) - {'reflect'}))
def test_single_pixel(mode):
    x = torch.randn(1, 1, 1, 1, dtype=torch.float64)
    check(x, 'haar', mode, tolerance=1e-12)
    check(x, 'db2', mode, tolerance=1e-12)


def test_haar_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 2, 2)
    bands = [band.item() for band in dwt2(x)]
    # (sum, top - bottom, left - right, diagonal) / 2
    assert bands == pytest.approx([6.0, -3.0, -2.0, 1.0])


def test_band_names():
    rows = torch.arange(8.0).remainder(2).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    _, horizontal, vertical, diagonal = dwt2(rows)
    assert horizontal.abs().min() > 0.9
    assert vertical.abs().max() < 1e-6
    assert diagonal.abs().max() < 1e-6


@pytest.mark.parametrize('mode', DWT_MODES)
def test_gradient(mode):
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: dwt2(x, wavelet='db2', mode=mode), (x,)
    )


@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16))
def test_half_precision_is_summed_in_float32(dtype):
    x = torch.randn(1, 2, 9, 8, dtype=dtype)
    for half, full in zip(dwt2(x, 'db4'), dwt2(x.float(), 'db4'), strict=True):
        assert half.dtype == dtype
        assert torch.equal(half, full.to(dtype))


def test_autocast_changes_nothing():
    x = torch.randn(1, 2, 9, 8)
    expected = dwt2(x, 'db2')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = dwt2(x, 'db2')
    for band, want in zip(got, expected, strict=True):
        assert torch.equal(band, want)


def test_compiles_and_exports():
    class Transform(torch.nn.Module):
        def forward(self, x):
            return dwt2(x, wavelet='db2')

    x = torch.randn(1, 2, 9, 8)
    torch._dynamo.reset()
    compiled = torch.compile(Transform(), fullgraph=True, backend='aot_eager')
    program = torch.export.export(Transform(), (x,))
    for run in (compiled, program.module()):
        for band, want in zip(run(x), dwt2(x, wavelet='db2'), strict=True):
            torch.testing.assert_close(band, want)


def test_bad_arguments():
    x = torch.randn(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r'x: expected .*\(1, 4, 4\)'):
        dwt2(x[0])
    with pytest.raises(ValueError, match='x: expected .*int64'):
        dwt2(x.long())
    with pytest.raises(ValueError, match='x: expected a non-empty'):
        dwt2(x[..., :0])
    with pytest.raises(ValueError, match="mode: .*'symmetric'.* got 'smooth'"):
        dwt2(x, mode='smooth')
    with pytest.raises(ValueError, match="wavelet: .*'db2'.* got 'mexh'"):
        dwt2(x, wavelet='mexh')
    with pytest.raises(ValueError, match="mode 'reflect' expects at least 2"):
        dwt2(x[:, :, :1], mode='reflect')


@pytest.mark.parametrize('wavelet', ('haar', 'db2'))
@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_high_bands_are_those_of_the_transform(wavelet, dtype):
    x = torch.randn(2, 3, 7, 10).to(dtype)
    _, *expected = dwt2(x, wavelet=wavelet)
    bands = high_bands(x, wavelet=wavelet)
    assert torch.equal(bands, torch.cat(expected, dim=1))


def test_many_channels_are_as_few():
    x = torch.randn(2, 6, 9, 8)
    parts = [high_bands(x[:, c : c + 1]) for c in range(6)]
    expected = torch.stack(parts, dim=2).flatten(1, 2)
    torch.testing.assert_close(high_bands(x), expected)


@pytest.mark.parametrize('channels', (0, 1, 5))
def test_any_channels(channels):
    x = torch.randn(2, channels, 6, 5)
    bands = dwt2(x)
    assert [band.shape for band in bands] == 4 * [(2, channels, 3, 3)]
    assert high_bands(x).shape == (2, 3 * channels, 3, 3)


def test_autocast_leaves_the_details():
    x = 100 + torch.randn(1, 3, 8, 8)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        bands = high_bands(x)
    assert torch.equal(bands, high_bands(x))
