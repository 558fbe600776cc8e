import pytest
import torch
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn

from mmseg_crackssm.engine import (
    BFloat16OptimWrapper,
    NoDecayOptimWrapperConstructor,
)
from mmseg_crackssm.engine.optimizers import amp_optim_wrapper


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
