import time

import pytest
import torch
from torch import nn
from torch.nn.modules.module import (
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from mmseg_crackssm.analysis.profiling import (
    KINDS,
    OUTSIDE,
    kind_of_operator,
    time_modules,
    time_operators,
)
from mmseg_crackssm.models.layers.conv_norm import has_hooks
from mmseg_crackssm.ops import selective_scan


class Sleeper(nn.Module):
    def __init__(self, seconds, *children):
        super().__init__()
        self.seconds = seconds
        self.inner = nn.ModuleList(children)

    def forward(self, x):
        time.sleep(self.seconds)
        for child in self.inner:
            x = child(x)
        return x


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only while something sleeps."""
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr('time.perf_counter', lambda: now[0])
    monkeypatch.setattr('time.sleep', sleep)


def test_self_time_of_modules(clock):
    shared = Sleeper(1.0)
    model = Sleeper(0.0, Sleeper(2.0, shared, shared), Sleeper(4.0))

    def call():
        time.sleep(0.5)
        for child in model.inner:
            child(None)

    rows = time_modules(model, call, rounds=3)
    seconds = {row['module']: row['self_s'] for row in rows}
    assert seconds == {
        'inner.1': 4.0,
        'inner.0': 2.0,
        'inner.0.inner.0': 2.0,
        OUTSIDE: 0.5,
    }
    assert rows[0]['module'] == 'inner.1'
    calls = {row['module']: row['calls'] for row in rows}
    assert calls == {
        'inner.1': 1,
        'inner.0': 1,
        'inner.0.inner.0': 2,
        OUTSIDE: 1,
    }
    assert not _global_forward_hooks and not _global_forward_pre_hooks


def test_timed_modules_run_as_without_a_watch():
    """Layers that join others do not where hooks wait for their output."""
    layer = nn.Linear(2, 2)
    seen = []

    def call():
        layer(torch.randn(1, 2))
        seen.append(has_hooks(layer))

    time_modules(nn.Sequential(layer), call, rounds=2)
    assert seen == [False, False]


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('aten::mkldnn_convolution', 'convolution'),
        ('aten::_conv_depthwise2d', 'convolution'),
        ('aten::convolution_backward', 'convolution'),
        ('aten::_convert_weight_to_int4pack', 'other'),
        ('aten::addmm', 'matrix product'),
        ('aten::baddbmm', 'matrix product'),
        ('aten::_scaled_dot_product_flash_attention', 'matrix product'),
        ('aten::sort', 'sort'),
        ('aten::scatter_', 'gather/scatter'),
        ('aten::index_select', 'gather/scatter'),
        ('aten::cudnn_batch_norm', 'norm'),
        ('aten::native_layer_norm', 'norm'),
        ('aten::linalg_vector_norm', 'other'),
        ('aten::upsample_bilinear2d', 'resize and pool'),
        ('aten::max_pool2d_with_indices', 'resize and pool'),
        ('aten::copy_', 'copy'),
        ('aten::_to_copy', 'copy'),
        ('aten::cat', 'copy'),
        ('aten::add_', 'elementwise'),
        ('aten::silu', 'elementwise'),
        ('aten::sum', 'other'),
        ('aten::no_such_operator', 'other'),
        ('crackssm::selective_scan', 'scan'),
        ('crackssm::intensity_argsort', 'sort'),
    ],
)
def test_kind_of_operator(name, kind):
    assert kind_of_operator(name) == kind
    assert kind in KINDS


def test_operators_of_a_call():
    x = torch.rand(1, 4, 6, 6)
    conv = nn.Conv2d(4, 4, 3, padding=1)
    rate = -torch.rand(4, 2)
    calls = []

    def call():
        calls.append(0)
        y = conv(x).sort(dim=1).values
        u = y.flatten(2)
        # Its inner exponentials and products are part of the scan.
        B = torch.rand(1, 2, 36)
        return selective_scan(u, u, rate, B, B, backend='torch')

    with torch.no_grad():
        kinds = time_operators(call, rounds=3)
    assert calls == [0] * 4
    assert list(kinds) == list(KINDS)
    assert kinds['scan']['calls'] > 5
    assert kinds['scan']['seconds'] > 0
    assert kinds['convolution']['seconds'] > 0
    assert kinds['sort']['calls'] == 1
    assert kinds['norm']['calls'] == kinds['matrix product']['calls'] == 0
    assert kinds['elementwise']['calls'] == 0
    assert sum(x['share'] for x in kinds.values()) == pytest.approx(1.0)
