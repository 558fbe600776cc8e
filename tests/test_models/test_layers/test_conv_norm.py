"""Normalisation taken into the weights of the convolution before it."""

import copy

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import revert_sync_batchnorm
from native_scan import needs_kernel
from operator_checks import Recorder
from torch.testing import assert_close

from mmseg_crackssm.models.layers import conv_norm as module_under_test
from mmseg_crackssm.models.layers.conv_norm import (
    ConvModule,
    ConvNorm,
    conv_norm,
)
from mmseg_crackssm.models.layers.pointwise import PointwiseConv2d
from mmseg_crackssm.ops.selective_scan.backends import ENVIRONMENT_VARIABLE


def trained(norm):
    """With statistics and weights that are not those of the start."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.randn(2, 4, 9, 7)


@pytest.fixture
def no_batch_norm(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError('the normalisation ran by itself')

    monkeypatch.setattr(F, 'batch_norm', fail)


@pytest.mark.parametrize('bias', (False, True))
@pytest.mark.parametrize('affine', (False, True))
@pytest.mark.parametrize('groups', (1, 2))
def test_folded_equals_both_in_turn(image, bias, affine, groups, monkeypatch):
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias, groups=groups)
    norm = trained(nn.BatchNorm2d(6, affine=affine)).eval()
    parameters = [*conv.parameters(), *norm.parameters()]
    expected = norm(conv(image))
    dy = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, parameters, dy)

    monkeypatch.setattr(F, 'batch_norm', None)
    y = conv_norm(image, conv, norm)
    grads = torch.autograd.grad(y, parameters, dy)

    assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert_close(grads, expected_grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'norm',
    (
        nn.BatchNorm2d(6),
        nn.BatchNorm2d(6, track_running_stats=False).eval(),
        nn.GroupNorm(2, 6).eval(),
    ),
    ids=('training', 'no statistics', 'group norm'),
)
def test_norms_of_the_map_itself_stay(image, norm):
    conv = nn.Conv2d(4, 6, 3)
    expected = F.batch_norm(conv(image), None, None, training=True)
    if isinstance(norm, nn.GroupNorm):
        expected = F.group_norm(conv(image), 2)
    assert_close(conv_norm(image, conv, norm), expected)


def test_training_updates_the_statistics(image):
    layer = ConvNorm()
    layer.add_module('conv', nn.Conv2d(4, 6, 3))
    layer.add_module('norm', nn.BatchNorm2d(6))
    layer(image)
    assert layer.norm.num_batches_tracked == 1
    layer.eval()(image)
    assert layer.norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    'options',
    (
        dict(),
        dict(momentum=None),
        dict(affine=False),
        dict(track_running_stats=False),
    ),
    ids=str,
)
@pytest.mark.parametrize('bias', (False, True))
def test_statistics_of_a_batch_follow_from_few_inputs(
    bias, options, no_batch_norm
):
    """Output, gradients and running statistics, without a normalisation."""
    torch.manual_seed(0)
    x = 3 + torch.randn(2, 6, 9, 7, dtype=torch.float64, requires_grad=True)
    conv = PointwiseConv2d(6, 9, groups=3, bias=bias).double()
    norm = nn.BatchNorm2d(9, **options).double()
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    other = copy.deepcopy(norm)
    inputs = [x, *conv.parameters()]
    dy = torch.randn(2, 9, 9, 7, dtype=torch.float64)
    for _ in range(2):  # the running statistics twice
        y = conv_norm(x, conv, norm)
        expected = by_torch(conv(x), other)
    assert_close(y, expected)
    assert_close(
        torch.autograd.grad(y, [*inputs, *norm.parameters()], dy),
        torch.autograd.grad(expected, [*inputs, *other.parameters()], dy),
    )
    assert_close(norm.state_dict(), other.state_dict())


def by_torch(x, norm):
    """``norm(x)`` in training, by an operator below ``F.batch_norm``."""
    tracks = norm.running_mean is not None
    if tracks:
        norm.num_batches_tracked += 1
    share = norm.momentum
    if share is None:
        share = 1 / float(norm.num_batches_tracked)
    return torch.batch_norm(
        x,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        True,
        share,
        norm.eps,
        False,
    )


def test_half_precision_does_not_reach_the_statistics(image):
    conv, norm = PointwiseConv2d(4, 6), nn.BatchNorm2d(6)
    expected = norm(conv(image + 100))
    other = nn.BatchNorm2d(6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        conv_norm(image + 100, conv, other)
    assert expected.dtype == torch.float32
    assert_close(other.running_var, norm.running_var, rtol=1e-4, atol=1e-4)


def test_a_single_number_has_no_statistics():
    conv, norm = PointwiseConv2d(4, 6), nn.BatchNorm2d(6)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        conv_norm(torch.randn(1, 4, 1, 1), conv, norm)


@pytest.mark.parametrize('processes', (1, 2))
def test_statistics_over_processes_stay(image, monkeypatch, processes):
    monkeypatch.setattr(module_under_test, 'get_world_size', lambda: processes)
    norm = nn.SyncBatchNorm(6)
    ran = []
    monkeypatch.setattr(norm, 'forward', lambda x: ran.append(x) or x)
    conv_norm(image, PointwiseConv2d(4, 6), norm)
    assert len(ran) == processes - 1


def test_hooks_see_both_modules(image):
    conv, norm = nn.Conv2d(4, 6, 3), trained(nn.BatchNorm2d(6)).eval()
    seen = []
    for module in (conv, norm):
        module.register_forward_hook(lambda m, x, y: seen.append(m))
    conv_norm(image, conv, norm)
    assert seen == [conv, norm]


def module(**options):
    torch.manual_seed(0)
    layer = ConvModule(4, 6, 3, **options)
    trained(layer.norm)
    return layer.eval()


def test_conv_module_folds(image, no_batch_norm):
    layer = module(norm_cfg=dict(type='BN'))
    y = layer(image)
    assert y.min() == 0
    assert layer(image, activate=False).min() < 0


@pytest.mark.parametrize(
    'options',
    (
        dict(),
        dict(act_cfg=None),
        dict(order=('norm', 'conv', 'act'), norm_cfg=dict(type='BN')),
        dict(padding=1, padding_mode='reflect'),
    ),
    ids=str,
)
@pytest.mark.parametrize('norm', (False, True))
def test_conv_module_is_that_of_mmcv(image, options, norm):
    layer = module(**{'norm_cfg': dict(type='BN'), **options})
    y = layer(image, norm=norm)
    expected = super(ConvModule, layer).forward(image, norm=norm)
    assert_close(y, expected, rtol=1e-5, atol=1e-5)


def train(layer, image):
    """Output, gradients and running statistics after two steps."""
    for _ in range(2):
        y = layer(image)
    inputs = [image, *layer.parameters()]
    # Where ReLU does not depend on roundings.
    dy = torch.ones_like(y) * (y.detach() > 1e-4)
    grads = torch.autograd.grad(y, inputs, dy)
    return y, *grads, *layer.norm.state_dict().values()


def training_module(**options):
    options = {'norm_cfg': dict(type='BN'), **options}
    return module(bias=False, **options).train()


@pytest.fixture
def channels_last():
    torch.manual_seed(1)
    x = torch.randn(2, 4, 9, 7).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_()


@needs_kernel
@pytest.mark.parametrize(
    'options',
    (
        dict(type='BN'),
        dict(type='BN', momentum=None),
        dict(type='BN', track_running_stats=False),
        dict(type='SyncBN'),
    ),
    ids=str,
)
def test_training_normalises_and_activates_at_once(
    channels_last, options, monkeypatch
):
    torch.manual_seed(0)
    layer = ConvModule(4, 6, 3, norm_cfg=options, bias=False)
    if options['type'] == 'SyncBN':
        layer = revert_sync_batchnorm(layer)
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    other = copy.deepcopy(layer)
    with Recorder() as recorder:
        results = train(layer, channels_last)
    assert recorder.kernels() == 2 * ['batch_norm_relu'] + [
        'batch_norm_relu_backward'
    ]
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, 'torch')
    with Recorder() as recorder:
        expected = train(other, channels_last)
    assert not recorder.kernels()
    assert_close(results, expected, rtol=1e-4, atol=1e-4)


def with_hook(name):
    layer = training_module()
    getattr(layer, name).register_forward_hook(lambda *args: None)
    return layer


@pytest.mark.parametrize(
    'layer',
    (
        lambda: with_hook('norm'),
        lambda: with_hook('activate'),
        lambda: training_module(act_cfg=dict(type='LeakyReLU')),
        lambda: training_module(act_cfg=None),
        lambda: training_module(norm_cfg=dict(type='BN', affine=False)),
        lambda: training_module().double().eval(),
    ),
    ids=('hook', 'hook of ReLU', 'LeakyReLU', 'none', 'not affine', 'eval'),
)
def test_other_modules_run_one_by_one(channels_last, layer):
    layer = layer()
    x = channels_last.to(layer.conv.weight.dtype)
    with Recorder() as recorder:
        y = layer(x)
    assert not recorder.kernels()
    assert_close(y, super(ConvModule, layer).forward(x), rtol=1e-4, atol=1e-4)


def test_other_memory_stays(channels_last):
    with Recorder() as recorder:
        training_module()(channels_last.contiguous())
    assert not recorder.kernels()


def test_a_single_number_of_a_map_has_no_statistics():
    x = torch.randn(1, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        training_module()(x)
