import pytest
import torch
from mmseg.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from mmseg_crackssm.engine import (
    BFloat16OptimWrapper,
    NoDecayOptimWrapperConstructor,
)
from mmseg_crackssm.engine.optimizers import (
    amp_optim_wrapper,
    build_optimizer,
)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.A_log = nn.Parameter(torch.zeros(2, 2))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


CFG = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.3),
)


def test_vectors_and_named_parameters_are_not_decayed():
    model = Model()
    build = NoDecayOptimWrapperConstructor(CFG, dict(no_decay=('A_log',)))
    groups = build(model).optimizer.param_groups
    decays = {
        id(parameter): group['weight_decay']
        for group in groups
        for parameter in group['params']
    }
    assert decays == {
        id(model.linear.weight): 0.3,
        id(model.linear.bias): 0.0,
        id(model.norm.weight): 0.0,
        id(model.norm.bias): 0.0,
        id(model.A_log): 0.0,
    }
    assert len(groups) == 2
    assert 'optimizer' in CFG and 'params' not in CFG['optimizer']


def steps(cfg):
    """Parameters after three steps of an optimiser."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = build_optimizer(dict(cfg, params=model.parameters()))
    x = torch.randn(5, 3)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    return optimizer, model.weight.detach()


@pytest.mark.parametrize('optimizer', ('AdamW', torch.optim.AdamW))
def test_fused_steps_are_those_of_the_loop(optimizer):
    cfg = dict(type=optimizer, lr=0.1, weight_decay=0.3)
    loop, expected = steps(dict(cfg, fused=False))
    fused, weight = steps(cfg)
    assert loop.defaults['fused'] is False
    assert fused.defaults['fused'] is has_fused_adamw()
    torch.testing.assert_close(weight, expected)


def has_fused_adamw():
    """Torch has it on the CPU from release 2.4 on."""
    major, minor = torch.__version__.split('.')[:2]
    return True if (int(major), int(minor)) >= (2, 4) else None


@pytest.mark.parametrize(
    'cfg',
    (
        dict(type='AdamW', lr=0.1, foreach=True),
        dict(type='Rprop', lr=0.1),
    ),
)
def test_what_is_asked_for_and_what_cannot_be_is_not_fused(cfg):
    optimizer, _ = steps(cfg)
    assert not optimizer.defaults.get('fused')


def test_not_fused_where_torch_cannot(monkeypatch):
    class OldAdamW(torch.optim.AdamW):
        def __init__(self, params, lr, fused=None):
            if fused:
                raise RuntimeError('`fused=True` requires CUDA')
            super().__init__(params, lr=lr)

    monkeypatch.setitem(OPTIMIZERS.module_dict, 'OldAdamW', OldAdamW)
    optimizer, weight = steps(dict(type='OldAdamW', lr=0.1))
    assert type(optimizer) is OldAdamW and weight.isfinite().all()


def test_training_goes_on_from_a_loop_s_state():
    cfg = dict(type='AdamW', lr=0.1)
    loop, _ = steps(dict(cfg, fused=False))
    fused, _ = steps(cfg)
    fused.load_state_dict(loop.state_dict())
    fused.step()


def test_unknown_optimiser_is_named():
    with pytest.raises(KeyError, match='AdamV'):
        steps(dict(type='AdamV', lr=0.1))


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match='custom_keys'):
        NoDecayOptimWrapperConstructor(CFG, dict(custom_keys={}))


@pytest.mark.parametrize('fast', [True, False])
def test_bfloat16_where_the_device_has_it(monkeypatch, fast):
    monkeypatch.setattr(amp_optim_wrapper, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(amp_optim_wrapper, 'has_bfloat16', lambda _: fast)
    model = Model()
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='BFloat16OptimWrapper',
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        )
    )
    assert isinstance(wrapper, BFloat16OptimWrapper)
    before = model.linear.weight.detach().clone()
    with wrapper.optim_context(model):
        out = model.linear(torch.ones(1, 3))
        assert out.dtype == (torch.bfloat16 if fast else torch.float32)
        loss = out.sum()
    wrapper.update_params(loss)
    assert model.linear.weight.dtype == torch.float32
    assert not torch.equal(before, model.linear.weight)
