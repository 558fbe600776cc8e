from torch.utils.flop_counter import FlopCounterMode

from mmseg_crackssm.ops import selective_scan
from mmseg_crackssm.ops.selective_scan import (
    selective_scan_backward_flops,
    selective_scan_flops,
)


def counted(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_formulas_by_hand():
    sizes = dict(batch=2, dim=4, length=10, d_state=3)
    assert selective_scan_flops(**sizes) == 80 * (27 + 1)
    assert selective_scan_flops(**sizes, has_skip=False) == 80 * 27
    assert selective_scan_backward_flops(**sizes) == 80 * (57 + 4)
    assert selective_scan_backward_flops(**sizes, has_skip=False) == 80 * 57


def test_counter_sees_the_scan(make_inputs):
    inputs = make_inputs(batch=2, dim=4, length=10, d_state=3)
    assert counted(lambda: selective_scan(**inputs)) == 80 * 28
    del inputs['D']
    assert counted(lambda: selective_scan(**inputs)) == 80 * 27


def test_counter_sees_forward_and_backward(make_inputs):
    inputs = make_inputs(
        batch=2, dim=4, length=10, d_state=3, requires_grad=True
    )
    total = counted(lambda: selective_scan(**inputs).sum().backward())
    assert total == 80 * (28 + 61)


def test_counter_on_meta_tensors(make_inputs):
    inputs = {name: x.to('meta') for name, x in make_inputs(length=10).items()}
    assert counted(lambda: selective_scan(**inputs)) == 80 * 28
