"""``adaptive_sample`` against other ways to the same map:
``python -m mmseg_crackssm.analysis.bench_sample``."""

import argparse
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..apis.errors import UsageError, run_cli
from ..models.backbones.damamba import resolve_arch
from ..ops import adaptive_sample
from .measure import (
    check_at_least_one,
    describe_machine,
    find_device,
    format_machine,
    interleave,
    tell_progress,
)

Sampler = Callable[[Tensor, Tensor], Tensor]

OURS = 'adaptive_sample'
#: Largest difference, relative to the largest value, that is rounding.
TOLERANCE = 1e-4


def sample_by_grid(x: Tensor, offset: Tensor) -> Tensor:
    """By ``F.grid_sample``, its coordinates as one writes them down.

    Args:
        x: Map (B, C, H, W).
        offset: (B, 2 * G, H, W), as for :func:`adaptive_sample`.
    """
    batch, channels, height, width = x.shape
    rows = torch.arange(height, dtype=x.dtype, device=x.device)
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing='xy'))
    offset = offset.unflatten(1, (-1, 2)).flatten(0, 1)
    points = (pixels + offset).permute(0, 2, 3, 1)
    size = points.new_tensor([width, height])
    sampled = F.grid_sample(
        x.reshape(len(points), -1, height, width),
        (2 * points + 1) / size - 1,
        align_corners=False,
    )
    return sampled.view(batch, channels, height, width)


def sample_by_rows(x: Tensor, offset: Tensor) -> Tensor:
    """By reading rows of channels-last memory, one per group and corner.

    Args:
        x: Map (B, C, H, W).
        offset: (B, 2 * G, H, W), as for :func:`adaptive_sample`.
    """
    batch, channels, height, width = x.shape
    groups = offset.shape[1] // 2
    device = x.device
    offset = offset.permute(0, 2, 3, 1).unflatten(-1, (groups, 2))
    dx, dy = offset.unbind(-1)
    px = dx + torch.arange(width, device=device)[:, None]
    py = dy + torch.arange(height, device=device)[:, None, None]
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels // groups)
    shape = (batch, 1, 1, 1)
    first = torch.arange(batch, device=device).view(shape) * height * width
    group = torch.arange(groups, device=device)
    total = torch.zeros_like(rows)
    for right in (0, 1):
        for below in (0, 1):
            column, row = px.floor() + right, py.floor() + below
            weight = (1 - (px - column).abs()) * (1 - (py - row).abs())
            weight = weight * ((column >= 0) & (column < width))
            weight = weight * ((row >= 0) & (row < height))
            column = column.clamp(0, width - 1).long()
            row = row.clamp(0, height - 1).long()
            index = (first + row * width + column) * groups + group
            corner = rows.index_select(0, index.flatten())
            total = total + corner * weight.reshape(-1, 1)
    return total.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _deformable_inputs(x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets as (dy, dx), and weights that change nothing."""
    offset = offset.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
    return offset, x.new_ones(x.shape[1], 1, 1, 1)


def find_samplers() -> dict[str, Sampler]:
    """All ways there are here, ours first.

    Deformable convolutions take part where torchvision, or mmcv with its
    compiled operators, is installed.
    """
    found: dict[str, Sampler] = {
        OURS: adaptive_sample,
        'F.grid_sample': sample_by_grid,
        'rows of channels-last memory': sample_by_rows,
    }
    torchvision = _import('torchvision.ops')
    if torchvision is not None:

        def by_torchvision(x: Tensor, offset: Tensor) -> Tensor:
            offset, weight = _deformable_inputs(x, offset)
            return torchvision.deform_conv2d(x, offset, weight)

        found['torchvision deform_conv2d'] = by_torchvision
    mmcv = _import('mmcv.ops')
    if mmcv is not None:

        def by_mmcv(x: Tensor, offset: Tensor) -> Tensor:
            offset, weight = _deformable_inputs(x, offset)
            # Stride, padding, dilation, groups and groups of offsets.
            sizes = (1, 0, 1, x.shape[1], offset.shape[1] // 2)
            return mmcv.deform_conv2d(x, offset, weight, *sizes)

        found['mmcv deform_conv2d'] = by_mmcv
    return found


def _import(name: str) -> ModuleType | None:
    # mmcv without its compiled part, or torchvision of another torch.
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        return None


def forward(sampler: Sampler, x: Tensor, offset: Tensor) -> None:
    """Sample without a graph."""
    with torch.no_grad():
        sampler(x, offset)


def forward_backward(
    sampler: Sampler, x: Tensor, offset: Tensor, gradient: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of map and offsets."""
    x, offset = (tensor.detach().requires_grad_() for tensor in (x, offset))
    return torch.autograd.grad(sampler(x, offset), (x, offset), gradient)


def make_stages(
    size: int, batch: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """Maps and offsets of DAMamba-T's four stages.

    Args:
        size: Height and width of the image.
        batch: Number of images.
        device: Where they lie.
    """
    arch = resolve_arch('tiny')
    generator = torch.Generator().manual_seed(0)
    stages = []
    for index, channels in enumerate(arch['channels']):
        side = max(size // (4 * 2**index), 1)
        groups = channels // arch['head_dim']
        shapes = ((batch, n, side, side) for n in (channels, 2 * groups))
        # 1.5 px: most points leave their pixel, few the map.
        x, offset = (torch.randn(s, generator=generator) for s in shapes)
        offset = 1.5 * offset
        # At whole pixels the gradient jumps, and rounding would choose.
        whole = offset.floor()
        offset = whole + (offset - whole).clamp(0.01, 0.99)
        stages.append((x.to(device), offset.to(device)))
    return stages


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Time the sampling in the four stages of DAMamba-T: '
        'ratios of the medians of one interleaved run to adaptive_sample'
    )
    parser.add_argument('--device', default='cpu')
    for name, default, text in (
        ('size', 512, 'height and width of the image'),
        ('batch', 1, 'number of images'),
        ('rounds', 15, 'how often each is timed'),
    ):
        parser.add_argument(
            f'--{name}',
            type=int,
            default=default,
            help=f'{text}; default: %(default)s',
        )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    check_at_least_one(size=args.size, batch=args.batch, rounds=args.rounds)
    device = find_device(args.device)
    samplers = find_samplers()
    sys.stdout.write(f'{format_machine(describe_machine(device))}\n')
    for index, (x, offset) in enumerate(
        make_stages(args.size, args.batch, device=device)
    ):
        tell_progress(f'timing stage {index + 1}')
        gradient = torch.randn_like(x)
        _check_same(samplers, x, offset, gradient)
        ways = {
            'forward': lambda s, x=x, o=offset: partial(forward, s, x, o),
            'with backward': lambda s, x=x, o=offset, g=gradient: partial(
                forward_backward, s, x, o, g
            ),
        }
        for way, bind in ways.items():
            timings = interleave(
                {name: bind(sampler) for name, sampler in samplers.items()},
                rounds=args.rounds,
                device=device,
            )
            ours = timings[OURS].median
            lines = [f'stage {index + 1} {tuple(x.shape)}, {way}:']
            lines += [
                f'  {name}: {1e3 * timing.median:.3f} ms, '
                f'ratio: {timing.median / ours:.2f}'
                for name, timing in timings.items()
            ]
            sys.stdout.write('\n'.join(lines) + '\n')


def _check_same(
    samplers: Mapping[str, Sampler],
    x: Tensor,
    offset: Tensor,
    gradient: Tensor,
) -> None:
    expected = None
    for name, sampler in samplers.items():
        found = (
            sampler(x, offset),
            *forward_backward(sampler, x, offset, gradient),
        )
        expected = found if expected is None else expected
        for what, one, other in zip(
            ('maps', 'gradients of maps', 'gradients of offsets'),
            expected,
            found,
            strict=True,
        ):
            error = float((one - other).abs().max() / one.abs().max())
            if error > TOLERANCE:
                raise UsageError(
                    f'{name} and {OURS} differ in {what} by {error:.1e}'
                )


if __name__ == '__main__':
    sys.exit(main())
