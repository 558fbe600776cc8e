import math

import pytest
import torch

from mmseg_crackssm.ops import selective_scan
from mmseg_crackssm.ops.discretization import (
    METHODS,
    discretize,
    discretize_diagonal,
)
from mmseg_crackssm.ops.selective_scan.reference import (
    selective_scan_reference,
)

A = torch.tensor([[-1.0, 0.5], [-0.5, -2.0]], dtype=torch.float64)
B = torch.tensor([[1.0], [0.3]], dtype=torch.float64)


def error(method, steps, frequency):
    """Error at t = 1 for x(t) = cos(frequency * t), h(0) = 0."""
    # With the input as two more states, the solution is one exponential.
    whole = torch.zeros(4, 4, dtype=torch.float64)
    whole[:2, :2], whole[:2, 2:3] = A, B
    whole[2, 3], whole[3, 2] = -frequency, frequency
    start = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    exact = (torch.matrix_exp(whole) @ start)[:2]

    A_bar, B_bar = discretize(A, B, 1 / steps, method)
    state = torch.zeros(2, dtype=torch.float64)
    for k in range(steps):
        x = math.cos(frequency * k / steps)
        state = A_bar @ state + B_bar[:, 0] * x
    return float((state - exact).norm())


@pytest.mark.parametrize(
    ('method', 'frequency', 'order'),
    [
        ('euler', 0, 1),
        ('bilinear', 0, 2),
        ('practical', 0, 1),
        ('euler', 3, 1),
        ('bilinear', 3, 1),
        ('zoh', 3, 1),
        ('practical', 3, 1),
    ],
)
def test_order_of_the_error(method, frequency, order):
    coarse, fine = (error(method, n, frequency) for n in (200, 400))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.05)


def test_zero_order_hold_is_exact_for_a_constant_input():
    assert error('zoh', 5, 0) < 1e-14


def test_bilinear_beats_euler_for_a_constant_input():
    assert error('bilinear', 50, 0) < error('euler', 50, 0) / 50


def test_hold_of_an_integrator():
    """A singular A has no inverse, but a solution."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    A_bar, B_bar = discretize(zero, zero + 2, 0.25, 'zoh')
    assert A_bar.item() == 1 and B_bar.item() == pytest.approx(0.5)


@pytest.mark.parametrize('method', METHODS)
def test_diagonal_equals_the_matrix(method):
    diagonal = torch.tensor([-0.3, -1.0, -7.0], dtype=torch.float64)
    weights = torch.tensor([[1.0], [2.0], [-3.0]], dtype=torch.float64)
    A_bar, B_bar = discretize(diagonal.diag(), weights, 0.2, method)
    step = torch.tensor(0.2, dtype=torch.float64)
    decay, gain = discretize_diagonal(step, diagonal, method)
    torch.testing.assert_close(decay.diag(), A_bar)
    torch.testing.assert_close(gain[:, None] * weights, B_bar)


def test_unknown_method():
    for call in (
        lambda: discretize(A, B, 0.1, 'rk4'),
        lambda: discretize_diagonal(torch.ones(1), -torch.ones(1), 'rk4'),
    ):
        with pytest.raises(ValueError, match=r'expected one of .*zoh'):
            call()


def scan_arguments(length=64):
    kw = dict(dtype=torch.float64)
    return (
        torch.randn(1, 3, length, **kw),
        torch.rand(1, 3, length, **kw),
        -torch.rand(3, 2, **kw) - 0.5,
        torch.randn(1, 1, 2, length, **kw),
        torch.randn(1, 1, 2, length, **kw),
    )


def test_reference_scan_takes_a_method():
    arguments = scan_arguments()
    practical = selective_scan_reference(*arguments)
    torch.testing.assert_close(
        practical, selective_scan(*arguments, backend='torch')
    )
    for method in ('euler', 'bilinear', 'zoh'):
        other = selective_scan_reference(*arguments, discretization=method)
        assert not torch.allclose(practical, other)


@pytest.mark.parametrize('method', ['euler', 'bilinear', 'zoh'])
def test_small_steps_make_the_methods_agree(method):
    u, delta, *rest = scan_arguments()
    found = [
        (
            selective_scan_reference(u, delta * scale, *rest)
            - selective_scan_reference(
                u, delta * scale, *rest, discretization=method
            )
        )
        .abs()
        .max()
        for scale in (1e-3, 1e-4)
    ]
    # The step lengths differ in their square, whatever the method.
    assert found[1] < found[0] / 80
