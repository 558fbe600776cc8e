import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_crackssm.ops import available_backends, selective_scan
from mmseg_crackssm.ops.selective_scan import chunked, unavailable_reason

NAMES = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')


class OperatorLog(TorchDispatchMode):
    """Names of our operators, as they run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == 'crackssm':
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


class ScanModule(torch.nn.Module):
    """A scan whose A and D are parameters."""

    def __init__(self, inputs):
        super().__init__()
        self.A = torch.nn.Parameter(inputs['A'].detach())
        self.D = torch.nn.Parameter(inputs['D'].detach())

    def forward(self, u, delta, B, C):
        return selective_scan(
            u, delta, self.A, B, C, self.D, delta_softplus=True
        )


def calls_to_scan(graph):
    return [
        str(node.target)
        for node in graph.nodes
        if node.op == 'call_function' and 'crackssm' in str(node.target)
    ]


@pytest.mark.parametrize('softplus', (False, True))
@pytest.mark.parametrize('absent', ((), ('D',), ('D', 'delta_bias')))
@pytest.mark.parametrize(('d_state', 'groups'), ((1, None), (3, 2)))
@pytest.mark.parametrize('backend', ('native', 'torch'))
def test_gradcheck(make_inputs, backend, d_state, groups, absent, softplus):
    if backend not in available_backends():
        pytest.skip(f'backend {backend}: {unavailable_reason(backend)}')
    inputs = make_inputs(
        length=19,
        d_state=d_state,
        groups=groups,
        dtype=torch.float64,
        requires_grad=True,
    )
    given = [name for name in NAMES if name not in absent]

    def scan(*tensors):
        named = dict(zip(given, tensors, strict=True))
        return selective_scan(
            **named, delta_softplus=softplus, backend=backend
        )

    assert torch.autograd.gradcheck(
        scan, [inputs[name] for name in given], fast_mode=True
    )


def test_states_are_saved_for_a_gradient_alone(make_inputs):
    with OperatorLog() as log:
        selective_scan(**make_inputs())
    assert log.names == ['selective_scan']

    with torch.no_grad(), OperatorLog() as log:
        selective_scan(**make_inputs(requires_grad=True))
    assert log.names == ['selective_scan']

    with OperatorLog() as log:
        selective_scan(**make_inputs(requires_grad=True)).sum().backward()
    assert log.names == [
        'selective_scan_save_states',
        'selective_scan_backward',
    ]


def test_one_input_with_gradient_is_enough(make_inputs):
    for name in NAMES:
        inputs = make_inputs()
        inputs[name].requires_grad_()
        selective_scan(**inputs).sum().backward()
        assert inputs[name].grad.abs().max() > 0, name


def test_second_derivative_is_refused(make_inputs):
    inputs = make_inputs(requires_grad=True)
    y = selective_scan(**inputs)
    with pytest.raises(RuntimeError, match="backend='reference'"):
        torch.autograd.grad(y.sum(), inputs['u'], create_graph=True)


@pytest.mark.parametrize('backend', ('auto', 'torch'))
@pytest.mark.parametrize('requires_grad', (False, True))
def test_opcheck_of_the_operator(make_inputs, requires_grad, backend):
    inputs = make_inputs(requires_grad=requires_grad)
    torch.library.opcheck(
        torch.ops.crackssm.selective_scan, (*inputs.values(), True, backend)
    )


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
@pytest.mark.parametrize('absent', (False, True))
def test_opcheck_of_the_inner_operators(make_inputs, absent, dtype):
    inputs = list(make_inputs(dtype=dtype).values())
    if absent:
        inputs[-2:] = [None, None]
    operators = torch.ops.crackssm
    arguments = (*inputs, True, 'auto')
    torch.library.opcheck(operators.selective_scan_save_states, arguments)
    y, states = operators.selective_scan_save_states(*arguments)
    assert states.numel() > 0
    torch.library.opcheck(
        operators.selective_scan_backward,
        (torch.ones_like(y), *inputs, True, states, 'auto'),
    )


@pytest.mark.parametrize('compiler', ('eager', 'aot_eager'))
def test_compiles_to_one_operator(make_inputs, compiler):
    inputs = make_inputs(requires_grad=True)
    graphs = []

    def keep_graph(module, example_inputs):
        graphs.append(module.graph)
        return torch._dynamo.lookup_backend(compiler)(module, example_inputs)

    def scan(**kwargs):
        return selective_scan(**kwargs, delta_softplus=True)

    torch._dynamo.reset()
    compiled = torch.compile(scan, fullgraph=True, backend=keep_graph)
    y = compiled(**inputs)
    assert [len(calls_to_scan(graph)) for graph in graphs] == [1]

    expected = scan(**inputs)
    torch.testing.assert_close(y, expected)
    for got, wanted in zip(
        torch.autograd.grad(y.sum(), inputs.values()),
        torch.autograd.grad(expected.sum(), inputs.values()),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)


def test_compiles_for_any_length(make_inputs):
    torch._dynamo.reset()
    compiled = torch.compile(
        selective_scan, fullgraph=True, dynamic=True, backend='aot_eager'
    )
    for length in (30, 41):
        inputs = make_inputs(length=length, requires_grad=True)
        y = compiled(**inputs)
        torch.testing.assert_close(y, selective_scan(**inputs))
        y.sum().backward()
        assert inputs['A'].grad.shape == inputs['A'].shape


def test_exports_as_one_operator_without_states(make_inputs):
    inputs = make_inputs()
    module = ScanModule(inputs)
    arguments = tuple(inputs[name] for name in ('u', 'delta', 'B', 'C'))
    program = torch.export.export(module, arguments)
    for graph in (program.graph, program.run_decompositions().graph):
        assert calls_to_scan(graph) == ['crackssm.selective_scan.default']
    torch.testing.assert_close(
        program.module()(*arguments), module(*arguments)
    )


def test_backends_run_without_autocast(monkeypatch, make_inputs):
    seen = []

    def spy_on(function):
        def spy(*args):
            seen.append(torch.is_autocast_enabled('cpu'))
            return function(*args)

        return spy

    for name in ('forward', 'backward'):
        monkeypatch.setattr(chunked, name, spy_on(getattr(chunked, name)))
    inputs = make_inputs(requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        selective_scan(**inputs, backend='torch').sum().backward()
        assert torch.is_autocast_enabled('cpu')
    assert seen == [False, False]


@pytest.mark.parametrize('backend', ('auto', 'torch', 'reference'))
@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16))
def test_autocast_leaves_the_scan_in_float32(make_inputs, dtype, backend):
    inputs = make_inputs(length=400, requires_grad=True)
    expected = selective_scan(**inputs, delta_softplus=True, backend=backend)
    with torch.autocast('cpu', dtype=dtype):
        y = selective_scan(**inputs, delta_softplus=True, backend=backend)
        y.sum().backward()
    assert y.dtype == torch.float32
    assert torch.equal(y, expected)
    got = {name: x.grad.clone() for name, x in inputs.items()}
    for x in inputs.values():
        x.grad = None
    expected.sum().backward()
    for name, x in inputs.items():
        assert torch.equal(got[name], x.grad), name


@pytest.mark.parametrize('backend', ('torch', 'reference'))
@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16))
def test_half_inputs_are_computed_in_float32(make_inputs, dtype, backend):
    half = make_inputs(length=400, dtype=dtype, requires_grad=True)
    # The parameters of a model under autocast stay in float32.
    for name in ('A', 'D', 'delta_bias'):
        half[name] = half[name].detach().float().requires_grad_()
    full = {
        name: x.detach().float().requires_grad_() for name, x in half.items()
    }
    y = selective_scan(**half, delta_softplus=True, backend=backend)
    expected = selective_scan(**full, delta_softplus=True, backend=backend)
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    y.sum().backward()
    expected.sum().backward()
    for name, x in half.items():
        assert x.grad.dtype == x.dtype, name
        assert torch.equal(x.grad, full[name].grad.to(x.dtype)), name


def test_fake_and_meta_tensors(make_inputs):
    inputs = {name: x.to('meta') for name, x in make_inputs().items()}
    y = selective_scan(**inputs)
    assert y.is_meta
    assert y.shape == inputs['u'].shape
