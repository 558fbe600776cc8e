"""Random calls of the whole contract, each backend against the reference.

``make fuzz`` runs many more of them, and new ones each time.
"""

import os
import re
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from torch import Tensor

from mmseg_crackssm.ops import available_backends, native, selective_scan
from mmseg_crackssm.ops.selective_scan.tiles import CHUNK_STEPS
from scan_error import NAMES, error_bounds, steps_and_errors
from triton_support import INTERPRETED

# The number of examples, given by hand; they are then new ones in each run.
EXAMPLES = os.environ.get('CRACKSSM_FUZZ_EXAMPLES')


def fuzz(examples):
    """Settings of a test that runs so many examples by default."""
    # Triton's interpreter needs a second for one.
    few = examples // 8 if INTERPRETED else examples
    return settings(
        max_examples=int(EXAMPLES or few),
        derandomize=EXAMPLES is None,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


HALF = (torch.bfloat16, torch.float16)
SINGLE = (torch.float32, *HALF)
# What replaces single numbers: by kind, the value in each type.
SPECIAL = {
    'zero': lambda dtype: 0.0,
    'denormal': lambda dtype: torch.finfo(dtype).tiny / 64,
    'small': lambda dtype: torch.finfo(dtype).tiny * 1e3,
    'huge': lambda dtype: min(1e30, torch.finfo(dtype).max / 2),
    # Beyond 20 torch's softplus is the identity.
    '20.5': lambda dtype: 20.5,
    '100': lambda dtype: 100.0,
    '-100': lambda dtype: -100.0,
    'inf': lambda dtype: torch.inf,
    '-inf': lambda dtype: -torch.inf,
    'nan': lambda dtype: torch.nan,
}
NOT_FINITE = ('inf', '-inf', 'nan')
# Backends that may take numbers below the smallest normal one for zero.
FLUSHES = ('native', 'triton')
# Asked for once: while a test runs, another one may be set. The environment
# that interprets Triton's kernels is there for them alone.
BACKENDS = ('triton',) if INTERPRETED else available_backends('cpu')
INSTRUCTION_SETS = native.INSTRUCTION_SETS
if native.is_available():
    best = INSTRUCTION_SETS.index(native.instruction_set())
    INSTRUCTION_SETS = INSTRUCTION_SETS[: best + 1]
LAYOUTS = ('contiguous', 'reversed', 'sliced', 'offset', 'expanded')


@dataclass
class Case:
    """One call: its inputs are drawn from ``seed``."""

    backend: str
    instruction_set: str | None
    threads: int
    softplus: bool
    growing: bool
    seed: int
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]
    layouts: dict[str, str]
    special: list[tuple[str, str, float]] = field(default_factory=list)


@st.composite
def shapes(draw):
    """Shapes of all inputs by name; D and delta_bias may be missing."""
    # Around the borders of vectors, segments, chunks and tiles.
    near = st.sampled_from((1, 4, 8, 16, 32, 64, 128)).flatmap(
        lambda x: st.integers(max(1, x - 1), x + 1)
    )
    length = draw(st.one_of(st.integers(1, 20), near, st.integers(1, 150)))
    batch = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))
    dim = groups * draw(st.sampled_from((1, 2, 3, 4, 5, 8, 15, 16, 17, 20)))
    d_state = draw(st.one_of(st.integers(1, 9), st.sampled_from((16, 17))))
    forms = [(batch,), (batch, 1), (batch, groups)]
    drawn = dict(
        u=(batch, dim, length),
        delta=(batch, dim, length),
        A=(dim, d_state),
        B=(*draw(st.sampled_from(forms)), d_state, length),
        C=(*draw(st.sampled_from(forms)), d_state, length),
        D=(dim,),
        delta_bias=(dim,),
    )
    for name in ('D', 'delta_bias'):
        if draw(st.booleans()):
            del drawn[name]
    return drawn


@st.composite
def cases(draw):
    """Calls that the contract allows, on a backend that is here."""
    sizes = draw(shapes())
    backend = draw(st.sampled_from(BACKENDS))
    is_native = backend == 'native'
    if backend != 'triton' and draw(st.integers(0, 4)) == 0:
        dtypes = dict.fromkeys((*sizes, 'dy'), torch.float64)
    else:
        main = draw(st.sampled_from(SINGLE))
        types = st.sampled_from((main, torch.float32))
        dtypes = {name: draw(types) for name in sizes}
        dtypes['dy'] = dtypes['u'] = main
    special = st.tuples(
        st.sampled_from((*sizes, 'dy')),
        st.sampled_from(tuple(SPECIAL)),
        st.sampled_from((0.001, 0.1, 1.0)),
    )
    return Case(
        backend=backend,
        instruction_set=(
            draw(st.sampled_from(INSTRUCTION_SETS)) if is_native else None
        ),
        threads=draw(st.integers(1, 3)) if is_native else 1,
        softplus=draw(st.booleans()),
        growing=draw(st.integers(0, 5)) == 0,
        seed=draw(st.integers(0, 2**32 - 1)),
        shapes=sizes,
        dtypes=dtypes,
        layouts={
            name: draw(st.sampled_from(LAYOUTS)) for name in (*sizes, 'dy')
        },
        special=draw(st.lists(special, max_size=3)),
    )


def make_tensors(case):
    """Inputs and output gradient of a case, laid out as it says."""
    generator = torch.Generator().manual_seed(case.seed)
    tensors = {}
    for name, shape in {**case.shapes, 'dy': case.shapes['u']}.items():
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name == 'A':
            x = 0.1 * x if case.growing else -torch.exp(x)
        elif name in ('delta', 'delta_bias') and not case.softplus:
            x = x.abs()
        x = x.to(case.dtypes[name])
        for spoiled, kind, share in case.special:
            if spoiled == name:
                drawn = torch.rand(shape, generator=generator)
                # At least one number.
                x[drawn <= max(share, drawn.min())] = SPECIAL[kind](x.dtype)
        tensors[name] = lay_out(x, case.layouts[name])
    return tensors


def lay_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers in another order of memory; NaN lies between them."""
    if layout == 'reversed':
        dims = tuple(reversed(range(x.dim())))
        return x.permute(dims).contiguous().permute(dims)
    if layout == 'sliced':
        wide = x.new_full([2 * size for size in x.shape], torch.nan)
        view = wide[(slice(None, None, 2),) * x.dim()]
        return view.copy_(x)
    if layout == 'offset':
        return (
            x.new_full((x.numel() + 1,), torch.nan)[1:].view(x.shape).copy_(x)
        )
    if layout == 'expanded':
        # The first of two or more dimensions that is not 1.
        for i, size in enumerate(x.shape):
            if size > 1:
                return x.narrow(i, 0, 1).clone().expand(x.shape)
    return x


def run(tensors, backend, softplus):
    """Output and gradients by name."""
    inputs = {
        name: x.detach().requires_grad_()
        for name, x in tensors.items()
        if name != 'dy'
    }
    y = selective_scan(**inputs, delta_softplus=softplus, backend=backend)
    grads = torch.autograd.grad(y, inputs.values(), tensors['dy'])
    return {'y': y.detach(), **dict(zip(inputs, grads, strict=True))}


@pytest.fixture
def restored_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    if native.is_available():
        native.set_instruction_set(None)


def plain_case(backend, length, dtype, **options):
    """One channel and one state."""
    row = (1, 1, length)
    sizes = dict(u=row, delta=row, A=(1, 1), B=row, C=row)
    names = (*sizes, 'dy')
    return Case(
        backend=backend,
        instruction_set=None,
        threads=1,
        seed=0,
        shapes=sizes,
        dtypes=dict.fromkeys(names, dtype),
        layouts=dict.fromkeys(names, 'contiguous'),
        **options,
    )


# A state grows out of the range within a chunk, but what it is read with is
# so small that the loop's gradients do not.
FAST_GROWTH = plain_case(
    'torch',
    length=145,
    dtype=torch.float64,
    softplus=False,
    growing=True,
    special=[('A', '100', 0.001), ('C', 'denormal', 1.0)],
)
# A step that float32 holds as a denormal number, and an infinite rate.
LOST_STEP = plain_case(
    BACKENDS[0],
    length=1,
    dtype=torch.float32,
    softplus=True,
    growing=True,
    special=[('delta', '-100', 0.001), ('A', '-inf', 0.001)],
)


@fuzz(examples=200)
@example(case=FAST_GROWTH)
@example(case=LOST_STEP)
@given(case=cases())
def test_every_call_agrees_with_the_reference(restored_threads, case):
    tensors = make_tensors(case)
    torch.set_num_threads(case.threads)
    if case.instruction_set is not None:
        native.set_instruction_set(case.instruction_set)
    got = run(tensors, backend=case.backend, softplus=case.softplus)
    torch.set_num_threads(1)

    exact = {name: x.double() for name, x in tensors.items()}
    expected = run(exact, backend='reference', softplus=case.softplus)
    for name, x in got.items():
        check_result(case, name, x)
    dy = exact.pop('dy')
    precision = (
        torch.float64 if case.dtypes['u'] == torch.float64 else torch.float32
    )
    bounds = case_bounds(case, exact, dy, precision)
    same_finite = any(
        kind in NOT_FINITE for _, kind, _ in case.special
    ) and stays_in_range(case, exact, dy, precision)
    for name, x in got.items():
        compare(name, x, expected[name], bounds[name], same_finite)


def check_result(case, name, x):
    source = 'u' if name == 'y' else name
    assert x.shape == case.shapes[source], name
    assert x.dtype == case.dtypes[source], name


def case_bounds(case, inputs, dy, precision):
    return error_bounds(
        inputs,
        dy,
        case.softplus,
        precision=precision,
        chunk_steps=CHUNK_STEPS if case.backend == 'torch' else 1,
    )


def stays_in_range(case, inputs, dy, precision):
    """Whether nothing but the inputs that are not finite leaves the range."""
    if case.backend in FLUSHES and inputs['A'].isinf().any():
        steps = steps_and_errors(inputs, case.softplus, 0.0, 0.0)[0].abs()
        tiny = torch.finfo(precision).tiny
        if ((steps > 0) & (steps < tiny)).any():
            # Taken for zero, they give NaN where the loop has exp(-inf) = 0.
            return False
    tame = {
        name: torch.where(x.isfinite(), x, 1.0)
        for name, x in {**inputs, 'dy': dy}.items()
    }
    dy = tame.pop('dy')
    tame['A'] = torch.where(inputs['A'].isfinite(), inputs['A'], -1.0)
    bounds = case_bounds(case, tame, dy, precision)
    return all(x.isfinite().all() for x in bounds.values())


def compare(name, got, expected, bound, same_finite):
    """Assert that one result is within its bound.

    Without a bound, whether a number is finite can still be compared, unless
    the range of the precision is the reason.
    """
    info = torch.finfo(got.dtype)
    bounded = bound.isfinite()
    assert expected[bounded].isfinite().all(), name
    if got.dtype in HALF:
        # The result is rounded once more.
        smallest = info.tiny * info.eps
        bound = bound + info.eps / 2 * (expected.abs() + bound) + smallest / 2
        bounded &= expected.abs() + bound < info.max
    difference = (got.double() - expected).abs()
    wrong = bounded & ~(difference <= bound)
    if same_finite and got.dtype not in HALF:
        wrong |= got.isfinite() != expected.isfinite()
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f'{name}{list(place)}: expected {expected[place].item()} within '
            f'{bound[place].item()}, got {got[place].item()}; '
            f'{int(wrong.sum())} of {wrong.numel()} are wrong'
        )


@st.composite
def spoiled(draw):
    """A call that the contract forbids: case, inputs, the wrong one."""
    case = draw(cases())
    case.special = []
    tensors = make_tensors(case)
    del tensors['dy']
    name = draw(st.sampled_from(tuple(tensors)))
    x = tensors[name]
    dim = draw(st.integers(0, x.dim() - 1))
    ways = {
        'one dimension less': lambda: x.select(dim, 0),
        'two dimensions more': lambda: x[None, None],
        'empty': lambda: x.narrow(dim, 0, 0),
        'longer': lambda: torch.cat([x, x.narrow(dim, 0, 1)], dim),
        'integer': lambda: x.nan_to_num().int(),
        'boolean': lambda: x > 0,
        'complex': lambda: x.to(torch.complex64),
        'other device': lambda: x.to('meta'),
        'other precision': lambda: (
            x.float() if x.dtype == torch.float64 else x.double()
        ),
        'not a tensor': lambda: x.tolist(),
    }
    way = draw(st.sampled_from(tuple(ways)))
    tensors[name] = ways[way]()
    # One that happens to have another of the allowed forms is no example.
    assume(not (name in 'BC' and has_an_allowed_form(tensors, name, way)))
    return case, tensors, name


def has_an_allowed_form(tensors, name, way):
    """Whether B or C, with another shape, still obeys the contract."""
    if way not in ('one dimension less', 'longer'):
        return False
    batch, dim, length = tensors['u'].shape
    d_state = tensors['A'].shape[1]
    shape = tuple(tensors[name].shape)
    if shape == (batch, d_state, length):
        return True
    if len(shape) != 4 or (shape[0], *shape[2:]) != (batch, d_state, length):
        return False
    other = tensors['C' if name == 'B' else 'B']
    others = 1 if other.dim() == 3 else other.shape[1]
    return dim % shape[1] == 0 and (
        1 in (others, shape[1]) or others == shape[1]
    )


# Where what is wrong may be seen first: N is that of A, for example.
NAMED = {'u': NAMES, 'A': ('A', 'B'), 'B': ('B', 'C')}


@fuzz(examples=200)
@given(spoiled_call=spoiled())
def test_every_wrong_call_is_refused_by_name(spoiled_call):
    case, inputs, name = spoiled_call
    with pytest.raises(ValueError) as error:
        selective_scan(
            **inputs, delta_softplus=case.softplus, backend=case.backend
        )
    message = str(error.value)
    named = '|'.join(NAMED.get(name, (name,)))
    assert re.match(rf'({named}): expected .*got .+\.$', message), message
