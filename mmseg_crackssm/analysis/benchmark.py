"""Latency, throughput and memory of networks, several in one run:
``python -m mmseg_crackssm.analysis.benchmark CONFIG...``."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial

import torch

from ..apis.errors import UsageError, run_cli
from .bare_backbones import BACKBONES, find_missing
from .benchmark_report import format_report
from .measure import (
    check_at_least_one,
    describe_machine,
    find_device,
    fit_exponent,
    interleave,
    peak_extra_bytes,
    tell_progress,
    threads_of_torch,
)
from .network_calls import (
    INFERENCE,
    TRAINING,
    Candidate,
    build_candidates,
    make_inference,
    make_training,
)
from .profiling import time_modules, time_operators

# Caches of convolution algorithms and the optimiser's state are there after.
WARMUP = 2
PROFILE_ROUNDS = 5


def measure_networks(
    configs: Sequence[str],
    shapes: Sequence[tuple[int, int]],
    *,
    batch: int = 1,
    device: torch.device | str = 'cpu',
    rounds: int = 10,
    amp: bool = False,
    train: bool = False,
    profile: bool = False,
) -> dict:
    """Measure configs side by side, with random weights on random images.

    Inference is from preprocessed images on the device to logits, in
    evaluation mode; of a backbone alone, to its maps. A training step is
    forward, loss, backward and AdamW.
    For each shape one round runs every config once.

    Args:
        configs: Paths, or names of shipped configs or of ``BACKBONES``; the
            first is what the others are compared with.
        shapes: Heights and widths.
        batch: Images at a time.
        device: Where.
        rounds: Rounds that count, after ``WARMUP`` that do not.
        amp: Whether to run under autocast to bfloat16.
        train: Whether to measure training steps too.
        profile: Whether to take the time of modules (inference) and of
            kinds of operators.

    Returns:
        ``rows``: per shape, mode ('inference', 'training step') and config,
        its sizes, times in seconds, ``images_per_second``, ``extra_bytes``
        (peak memory beyond model, optimiser and images; None if not known)
        and ``ratio``, its median over the first config's. ``exponents``, if
        there are several numbers of pixels: per mode and config that of time
        and memory (None if not known). ``profiles``, if asked for.
        ``left_out``, if there are any: why, by the name of the backbone.

    Raises:
        FileNotFoundError: There is no such config.
        UsageError: A config has no model, or cannot train on this batch; or
            all have been left out.
    """
    device = torch.device(device)
    left_out = find_missing(configs)
    for name, reason in left_out.items():
        tell_progress(f'{name} is left out: {reason}')
    configs = [config for config in configs if config not in left_out]
    if not configs:
        raise UsageError(f'nothing to measure: {"; ".join(left_out.values())}')
    candidates = build_candidates(configs, shapes=shapes, device=device)
    rows: list[dict] = []
    profiles: list[dict] = []
    for mode in (INFERENCE, TRAINING) if train else (INFERENCE,):
        make = make_training if mode == TRAINING else make_inference
        for candidate in candidates:
            candidate.model.train(mode == TRAINING)
        for shape in shapes:
            tell_progress(f'{mode}, {shape[0]} x {shape[1]}')
            where = {'mode': mode, 'shape': list(shape), 'batch': batch}
            calls = [
                make(x, shape=shape, batch=batch, device=device, amp=amp)
                for x in candidates
            ]
            rows += [
                {**where, **candidate.sizes[shape], **row}
                for candidate, row in zip(
                    candidates,
                    _measure(
                        candidates,
                        calls,
                        batch=batch,
                        rounds=rounds,
                        device=device,
                    ),
                    strict=True,
                )
            ]
            if profile:
                profiles += [
                    {**where, **_profile(candidate, call, mode, device=device)}
                    for candidate, call in zip(candidates, calls, strict=True)
                ]
    report = {
        'machine': describe_machine(device),
        'amp': amp,
        'rows': rows,
        'exponents': fit_exponents(rows),
    }
    return (
        report
        | ({'profiles': profiles} if profile else {})
        | ({'left_out': left_out} if left_out else {})
    )


def _measure(
    candidates: Sequence[Candidate],
    calls: Sequence[Callable[[], object]],
    batch: int,
    rounds: int,
    device: torch.device,
) -> list[dict]:
    """Time and memory of each candidate's call."""
    names = [candidate.name for candidate in candidates]
    timings = interleave(
        dict(zip(names, calls, strict=True)),
        rounds=rounds,
        warmup=WARMUP,
        device=device,
    )
    extra = [peak_extra_bytes(call, device=device) for call in calls]
    first = timings[names[0]].median
    return [
        {
            'config': candidate.name,
            **timing.summary(),
            'images_per_second': batch / timing.median,
            'extra_bytes': count,
            'ratio': timing.median / first,
        }
        for candidate, timing, count in zip(
            candidates, timings.values(), extra, strict=True
        )
    ]


def _profile(
    candidate: Candidate,
    call: Callable[[], object],
    mode: str,
    device: torch.device,
) -> dict:
    """Time by kind of operator, and of inference by module too."""
    report: dict = {
        'config': candidate.name,
        'operators': time_operators(
            call, rounds=PROFILE_ROUNDS, device=device
        ),
    }
    if mode == INFERENCE:
        report['modules'] = time_modules(
            candidate.model, call, rounds=PROFILE_ROUNDS, device=device
        )
    return report


def fit_exponents(rows: Sequence[dict]) -> list[dict]:
    """Exponents of cost against pixels.

    Args:
        rows: As of :func:`measure_networks`.

    Returns:
        Per mode and config with at least two numbers of pixels: ``time`` and
        ``memory``, the exponents; ``memory`` is None where it is not known.
    """
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row['mode'], row['config']), []).append(row)
    exponents = []
    for (mode, config), group in groups.items():
        pixels = [row['shape'][0] * row['shape'][1] for row in group]
        if len(set(pixels)) < 2:
            continue
        extra = [row['extra_bytes'] for row in group]
        exponents.append(
            {
                'mode': mode,
                'config': config,
                'time': fit_exponent(
                    pixels, [row['median_s'] for row in group]
                ),
                'memory': fit_exponent(pixels, extra) if all(extra) else None,
            }
        )
    return exponents


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Measure networks side by side, interleaved, from '
        'preprocessed image to logits (or maps), with random weights'
    )
    parser.add_argument(
        'configs',
        nargs='+',
        metavar='CONFIG',
        help='config file, name of a shipped config, or a backbone alone '
        f'({", ".join(BACKBONES)}); the first is what the others are '
        'compared with',
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='height and width of the images (default: 512 512)',
    )
    size.add_argument(
        '--sizes',
        type=int,
        nargs='+',
        metavar='SIZE',
        help='squares of these sizes, and the exponent of cost in pixels',
    )
    parser.add_argument(
        '--batch', type=int, default=1, help='images at a time (default: 1)'
    )
    parser.add_argument('--device', default='cpu', help='default: cpu')
    parser.add_argument(
        '--threads',
        type=int,
        default=torch.get_num_threads(),
        help="default: torch's choice, here %(default)s",
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=10,
        help=f'rounds, after {WARMUP} of warm-up (default: %(default)s)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='autocast to bfloat16'
    )
    parser.add_argument(
        '--train',
        action='store_true',
        help='training steps too: forward, loss, backward, AdamW',
    )
    parser.add_argument(
        '--profile',
        action='store_true',
        help='time of modules and of kinds of operators',
    )
    parser.add_argument(
        '--json',
        action='store_true',
        help='print one JSON object, on one line',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    check_at_least_one(
        batch=args.batch, threads=args.threads, rounds=args.rounds
    )
    if args.sizes:
        shapes = [(size, size) for size in dict.fromkeys(args.sizes)]
    else:
        shapes = [tuple(args.shape or (512, 512))]
    if min(map(min, shapes)) < 1:
        option = '--sizes' if args.sizes else '--shape'
        raise UsageError(f'{option}: expected numbers of at least 1')
    # Libraries log to the standard output, which is for the result alone.
    with redirect_stdout(sys.stderr), threads_of_torch(args.threads):
        report = measure_networks(
            args.configs,
            shapes=shapes,
            batch=args.batch,
            device=find_device(args.device),
            rounds=args.rounds,
            amp=args.amp,
            train=args.train,
            profile=args.profile,
        )
    text = json.dumps(report) if args.json else format_report(report)
    sys.stdout.write(f'{text}\n')


if __name__ == '__main__':
    sys.exit(main())
