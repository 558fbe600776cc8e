"""Parameters and operations of a model at inference.

Counting is done where torch dispatches its operators, so that functional
calls (``einsum``, ``matmul``, ``F.conv2d``) count like modules do. ``macs``
are the multiply-accumulates of convolutions, linear maps and matrix products,
the counting of the CrackSSM paper's tables; biases, norms, activations,
resizing and other element-wise work are not in it. The selective scan is one
operator with a formula of its own and is reported beside, in floating-point
operations (two per multiply-accumulate).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from prettytable import PrettyTable
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.layers.s6 import S6
from ..ops.selective_scan.backends import ENVIRONMENT_VARIABLE

# Module that only training uses.
AUXILIARY = 'auxiliary_head'
# Where operations outside any child module's call are booked: mmseg's
# segmentors call methods of the head, not the module.
HEAD = 'decode_head'
KIND_UNITS = ('macs', 'flops')
MAC_KINDS = ('convolution', 'linear', 'matmul')
_ATEN = torch.ops.aten
_LINEAR_OPS = {_ATEN.mm, _ATEN.addmm, _ATEN.mv, _ATEN.addmv, _ATEN._scaled_mm}
_MATMUL_OPS = {_ATEN.bmm, _ATEN.baddbmm, _ATEN.addbmm, _ATEN.dot}


def _attention_flops(
    query: torch.Size,
    key: torch.Size,
    value: torch.Size,
    *_: object,
    **__: object,
) -> int:
    *batch, length, width = query
    return 2 * prod(batch) * length * key[-2] * (width + value[-1])


# Operators that torch's own table of formulas lacks.
_EXTRA_FORMULAS = {
    _ATEN.mv: lambda a, b, **_: 2 * prod(a),
    _ATEN.addmv: lambda x, a, b, **_: 2 * prod(a),
    _ATEN.dot: lambda a, b, **_: 2 * prod(a),
    _ATEN.addbmm: lambda x, a, b, **_: 2 * prod(a) * b[-1],
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}


def count_params(model: nn.Module) -> dict[str, int]:
    """Parameters by top-level module, frozen ones included.

    Args:
        model: The model; a parameter shared by two modules counts in the
            first.

    Returns:
        Numbers by name of child module; the model's own parameters are under
        the name ``''``, if there are any.
    """
    counts: Counter[str] = Counter()
    for name, param in model.named_parameters():
        counts[name.split('.')[0] if '.' in name else ''] += param.numel()
    return dict(counts)


def count_flops(
    model: nn.Module, shape: tuple[int, int], in_channels: int = 3
) -> dict:
    """Count a segmentor's inference on one image, on the CPU.

    Runs the model once, in evaluation mode, from the preprocessed image to
    the logits. Auxiliary heads do not run and are not in ``params``. The
    selective scan counts the same whatever backend the model asks for.

    Args:
        model: The segmentor. Its mode and backends are restored; it must be
            on the CPU.
        shape: Height and width of the image.
        in_channels: Channels of the image.

    Returns:
        ``params``; ``auxiliary_params``, those of the auxiliary heads;
        ``macs``; ``scan_flops``; ``shape`` [H, W]; ``by_kind``, with
        ``macs`` for ``convolution``, ``linear`` (products with a 2-D
        matrix), ``matmul`` (batched products, attention) and ``flops`` for
        ``scan`` and, if present, for ``other`` operators that registered a
        formula; ``by_module``, with ``params``, ``macs`` and ``scan_flops``
        of each child module. All are plain integers and lists.

    Raises:
        ValueError: If ``shape`` is not two positive integers.
    """
    if len(shape) != 2 or any(x < 1 for x in shape):
        raise ValueError(
            f'expected height and width, both at least 1, got {shape}'
        )
    image = torch.rand(1, in_channels, *shape)
    with (
        evaluating(model),
        _scanning_anyhow(model),
        FlopCounterMode(
            display=False, custom_mapping=_EXTRA_FORMULAS
        ) as counter,
    ):
        with _booked_by_child(model, counter) as booked:
            infer(model, image)
        total = _operations(counter)
    elsewhere = total - sum(booked.values(), Counter())
    if elsewhere:
        name = HEAD if hasattr(model, HEAD) else ''
        booked[name] = booked.get(name, Counter()) + elsewhere
    params = count_params(model)
    auxiliary_params = params.pop(AUXILIARY, 0)
    by_module = {
        name: {'params': params.get(name, 0), **_totals(booked.get(name, {}))}
        for name in dict.fromkeys((*params, *booked))
    }
    return {
        'params': sum(params.values()),
        'auxiliary_params': auxiliary_params,
        **_totals(total),
        'shape': list(shape),
        'by_kind': _by_kind(total),
        'by_module': by_module,
    }


def build_model(cfg: Config | str | Path) -> nn.Module:
    """Build a config's model with random weights.

    Args:
        cfg: Config, or the path of one.

    Raises:
        ValueError: If the config has no ``model``.
    """
    if not isinstance(cfg, Config):
        cfg = Config.fromfile(cfg)
    if 'model' not in cfg:
        raise ValueError(
            f'expected a config with a model, got one without: {cfg.filename}'
        )
    init_default_scope(cfg.get('default_scope') or 'mmseg')
    return MODELS.build(cfg.model)


def measure_config(cfg: Config | str | Path, shape: tuple[int, int]) -> dict:
    """Build a config's model with random weights and count it.

    Args:
        cfg: Config, or the path of one.
        shape: Height and width of the image.

    Returns:
        As :func:`count_flops`.

    Raises:
        ValueError: If the config has no ``model``.
    """
    model = build_model(cfg)
    return count_flops(model, shape=shape, in_channels=count_channels(model))


def infer(model: nn.Module, images: Tensor) -> Tensor:
    """From preprocessed images to the logits, as mmseg's test loop does.

    Args:
        model: The segmentor, in evaluation mode.
        images: (B, C, H, W).

    Returns:
        Logits (B, classes, H, W).
    """
    if not hasattr(model, 'encode_decode'):
        return model(images, mode='tensor')
    size = tuple(images.shape[-2:])
    meta = dict(
        ori_shape=size,
        img_shape=size,
        pad_shape=size,
        padding_size=[0, 0, 0, 0],
    )
    return model.encode_decode(images, [meta] * len(images))


def count_channels(model: nn.Module) -> int:
    """Channels of the images that a segmentor takes.

    Those of its preprocessor's mean; 3 where there is none.
    """
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    return len(mean) if isinstance(mean, Tensor) else 3


def format_report(report: dict) -> str:
    """The result of :func:`count_flops` as text for people."""
    height, width = report['shape']
    modules = PrettyTable(['module', 'parameters', 'MACs', 'scan FLOPs'])
    for name, row in report['by_module'].items():
        modules.add_row(
            [name or '(own)', f'{row["params"]:,}']
            + [_giga(row[x]) for x in ('macs', 'scan_flops')]
        )
    kinds = PrettyTable(['kind of operator', 'MACs', 'FLOPs'])
    for kind, row in report['by_kind'].items():
        kinds.add_row(
            [kind, *(_giga(row[x]) if x in row else '' for x in KIND_UNITS)]
        )
    for table in (modules, kinds):
        table.align = 'r'
    modules.align['module'] = kinds.align['kind of operator'] = 'l'
    operators = report.get('operator_macs', report['macs'])
    lines = [
        f'input       {height} x {width}',
        f'parameters  {report["params"]:,} ({report["params"] / 1e6:.2f} M)',
        f'MACs        {_giga(operators)} (convolutions, linear maps, '
        'matrix products)',
        f'scan FLOPs  {_giga(report["scan_flops"])}, not among the MACs',
        str(kinds),
        str(modules),
    ]
    if 'operator_macs' in report:
        lines.insert(
            3,
            f'as papers   {_giga(report["macs"])} (what hooks on '
            'modules see, as ptflops 0.6.9 counts)',
        )
    if report['auxiliary_params']:
        lines.append(
            f'Auxiliary heads, used in training alone, have another '
            f'{report["auxiliary_params"]:,} parameters.'
        )
    return '\n'.join(lines)


def _giga(count: int) -> str:
    return f'{count / 1e9:.4f} G'


def _kind(op: object) -> str:
    name = str(op)
    if 'selective_scan' in name:
        return 'scan'
    if op in _LINEAR_OPS:
        return 'linear'
    if op in _MATMUL_OPS or 'attention' in name or 'mean_gate' in name:
        return 'matmul'
    if name.startswith('aten.') and 'conv' in name:
        return 'convolution'
    return 'other'


def _operations(counter: FlopCounterMode) -> Counter:
    """FLOPs so far, by kind."""
    kinds: Counter[str] = Counter()
    for op, flops in counter.get_flop_counts().get('Global', {}).items():
        kinds[_kind(op)] += flops
    return kinds


def _totals(operations: dict[str, int]) -> dict[str, int]:
    return {
        'macs': sum(operations.get(x, 0) for x in MAC_KINDS) // 2,
        'scan_flops': operations.get('scan', 0),
    }


def _by_kind(operations: Counter) -> dict[str, dict[str, int]]:
    kinds = {x: {'macs': operations[x] // 2} for x in MAC_KINDS}
    kinds['scan'] = {'flops': operations['scan']}
    if operations['other']:
        kinds['other'] = {'flops': operations['other']}
    return kinds


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and without fused attention.

    Fused attention layers are single operators without a formula.
    """
    training = model.training
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _scanning_anyhow(model: nn.Module) -> Iterator[None]:
    """The selective scan as one operator, on any backend that runs here.

    A model may ask for a CUDA kernel, or for the plain loop, which is no
    operator and would count nothing. Nor may the scan take in the products
    that make its step sizes, which count as such.
    """
    asked = {
        m: (m.backend, m.fused) for m in model.modules() if isinstance(m, S6)
    }
    variable = os.environ.pop(ENVIRONMENT_VARIABLE, None)
    for module in asked:
        module.backend, module.fused = 'auto', False
    try:
        yield
    finally:
        for module, (backend, fused) in asked.items():
            module.backend, module.fused = backend, fused
        if variable is not None:
            os.environ[ENVIRONMENT_VARIABLE] = variable


@contextmanager
def _booked_by_child(
    model: nn.Module, counter: FlopCounterMode
) -> Iterator[dict[str, Counter]]:
    """Book the operations of each child's calls under its name."""
    booked: dict[str, Counter] = {}
    started: list[Counter] = []
    handles = []

    def enter(module: nn.Module, args: tuple) -> None:
        started.append(_operations(counter))

    def leave_as(name: str) -> Callable[..., None]:
        def leave(module: nn.Module, args: tuple, output: object) -> None:
            spent = _operations(counter) - started.pop()
            booked[name] = booked.get(name, Counter()) + spent

        return leave

    for name, child in model.named_children():
        handles.append(child.register_forward_pre_hook(enter))
        handles.append(child.register_forward_hook(leave_as(name)))
    try:
        yield booked
    finally:
        for handle in handles:
            handle.remove()
