"""The scan's backends against the plain loop and against the machine:
``python -m mmseg_crackssm.analysis.bench_scan``."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial

import torch
from prettytable import PrettyTable

from ..apis.errors import UsageError, run_cli
from ..ops import native
from ..ops.selective_scan import (
    BACKENDS,
    available_backends,
    resolve_backend,
)
from ..ops.selective_scan.backends import REFERENCE
from ..ops.selective_scan.library import compute_dtype
from .measure import (
    check_at_least_one,
    describe_machine,
    find_device,
    format_machine,
    format_mebi,
    tell_progress,
    threads_of_torch,
)
from .measure_scan import COMPARISON_ROUNDS, COMPARISONS, measure_case
from .scan_baselines import BASELINES, missing_baseline
from .scan_limit import COPY, ScanCase, make_probes

# Wide and long, wide and many states, a single state.
DEFAULT_CASES = (
    ScanCase(1, 256, 12544, 16, 4),
    ScanCase(2, 512, 3136, 16, 4),
    ScanCase(1, 192, 16384, 1, 1),
)
DTYPES = ('float32', 'float64', 'bfloat16', 'float16')


def select_backends(
    names: Sequence[str] | None,
    cases: Sequence[ScanCase],
    dtype: torch.dtype,
    device: torch.device,
) -> list[str]:
    """The backends to measure.

    Args:
        names: Names, None for all that serve every case here, and all
            comparisons that are installed.
        cases: What they have to serve.
        dtype: Precision that they compute in.
        device: Where.

    Raises:
        UsageError: If one that is named does not exist, does not serve a
            case, or is not installed.
    """
    d_state = max(case.d_state for case in cases)
    if names is None:
        backends = [
            name
            for name in available_backends(device)
            if name == REFERENCE
            or BACKENDS[name].serves(device.type, dtype, d_state)
        ]
        return backends + [x for x in BASELINES if not missing_baseline(x)]
    for name in names:
        if name in COMPARISONS:
            missing = missing_baseline(name)
            if missing:
                raise UsageError(f'--backends: {missing}')
            continue
        try:
            if resolve_backend(name, device.type, dtype, d_state) != name:
                raise UsageError(f'--backends: name a backend, not {name!r}')
        except (ValueError, RuntimeError) as error:
            raise UsageError(str(error)) from error
    return list(dict.fromkeys(names))


def format_report(report: dict) -> str:
    """The result of a run as text for people."""
    lines = [format_machine(report['machine'])]
    isa = report['native_isa']
    isa = f', native on {isa}' if isa else ''
    for entry in report['cases']:
        limit = entry['limit']
        rate = limit['exps_per_second']
        exps = (
            'exponentials not measured on this device'
            if rate is None
            else f'{rate / 1e9:.2f} G exp/s ({limit["exp_source"]})'
        )
        sizes = 'B {} D {} L {} N {} G {}'.format(*entry['case'])
        lines += [
            '',
            f'{sizes}, {report["dtype"]}{isa}',
            f'machine: {exps}, copy '
            f'{limit["copy_bytes_per_second"] / 1e9:.1f} GB/s',
            _table(entry['rows']).get_string(),
            _comparison_table(entry['rows']).get_string(),
            *(
                _threads_table(on_threads, entry['limit']).get_string()
                for on_threads in entry['on_threads']
            ),
            'Errors over the first '
            f'{entry["error_steps"]} steps, against the loop in float64.',
        ]
    lines.append(
        'extra: peak memory beyond inputs and results. of limit: least time '
        'that exponentials or\ncopying take on this machine, over this one. '
        'reference: the plain loop. mamba_loop: the loop\nas mamba_ssm '
        'arranges it. Of both, the forward is what is compared.'
    )
    return '\n'.join(lines)


def _table(rows: Sequence[dict]) -> PrettyTable:
    table = PrettyTable(
        ['backend', 'direction', 'median ms', 'min ms', 'spread']
        + ['extra MiB', 'error y', 'error grads', 'limit ms', 'of limit']
    )
    table.align = 'r'
    table.align['backend'] = table.align['direction'] = 'l'
    for row in rows:
        gradients = [v for k, v in row['errors'].items() if k != 'y']
        table.add_row(
            [
                row['backend'],
                row['direction'],
                f'{row["median_s"] * 1e3:.2f}',
                f'{row["min_s"] * 1e3:.2f}',
                f'{row["spread"]:.0%}',
                format_mebi(row['extra_bytes']),
                f'{row["errors"]["y"]:.1e}',
                f'{max(gradients):.1e}' if gradients else '-',
                f'{row["limit_s"] * 1e3:.2f}',
                f'{row["fraction_of_limit"]:.1%}',
            ]
        )
    return table


def _comparison_table(rows: Sequence[dict]) -> PrettyTable:
    """How many times as long as each backend the others take."""
    names = list(dict.fromkeys(row['backend'] for row in rows))
    table = PrettyTable(
        ['times as long as', 'direction', *(f'{x} takes' for x in names)]
    )
    table.align = 'r'
    table.align['times as long as'] = table.align['direction'] = 'l'
    for row in rows:
        if row['backend'] in COMPARISONS:
            continue
        ratios = (row['speedups'].get(name) for name in names)
        table.add_row(
            [row['backend'], row['direction']]
            + ['-' if x is None else f'{x:.2f}' for x in ratios]
        )
    return table


def _threads_table(on_threads: dict, limit: dict) -> PrettyTable:
    """How many times as fast all is on another number of threads."""
    table = PrettyTable(
        [f'on {on_threads["threads"]} threads', 'times as fast']
    )
    table.align = 'r'
    table.align[table.field_names[0]] = 'l'
    for name, speedup in on_threads['scans'].items():
        table.add_row([name, f'{speedup:.2f}'])
    for name, speedup in on_threads['probes'].items():
        if name == COPY:
            table.add_row(['the machine: copy', f'{speedup:.2f}'])
        elif name == limit['exp_source']:
            table.add_row(['the machine: exponentials', f'{speedup:.2f}'])
    return table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Measure the backends of the selective scan, interleaved, '
        'against the plain loop and against the limit that exponentials and '
        'memory set on this machine'
    )
    parser.add_argument(
        '--case',
        type=int,
        nargs=5,
        action='append',
        metavar=('B', 'D', 'L', 'N', 'G'),
        help='batch, channels, steps, states, groups; may be repeated '
        f'(default: {"; ".join(_words(x) for x in DEFAULT_CASES)})',
    )
    parser.add_argument(
        '--backends',
        nargs='+',
        help='backends, and for comparison '
        + ', '.join(COMPARISONS)
        + ' (default: all there are)',
    )
    parser.add_argument(
        '--isa',
        help="instruction set of 'native': "
        + ', '.join(native.INSTRUCTION_SETS),
    )
    parser.add_argument('--dtype', choices=DTYPES, default='float32')
    parser.add_argument('--device', default='cpu', help='default: cpu')
    parser.add_argument(
        '--threads',
        type=int,
        nargs='+',
        default=[1],
        metavar='N',
        help='threads (default: 1); with further numbers, also how many '
        'times as fast the backends are on those',
    )
    parser.add_argument(
        '--repeat',
        type=int,
        default=7,
        help='rounds, after one of warm-up (default: %(default)s); '
        f'comparisons run in {COMPARISON_ROUNDS} at most',
    )
    parser.add_argument(
        '--json',
        action='store_true',
        help='print one JSON object, on one line',
    )
    return parser.parse_args(argv)


def _words(case: ScanCase) -> str:
    return ' '.join(map(str, case.sizes))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    check_at_least_one(threads=min(args.threads), repeat=args.repeat)
    threads, *more_threads = dict.fromkeys(args.threads)
    device = find_device(args.device)
    try:
        cases = [ScanCase(*sizes) for sizes in args.case or ()]
    except ValueError as error:
        raise UsageError(f'--case: {error}') from error
    # Libraries log to the standard output, which is for the result alone.
    with (
        redirect_stdout(sys.stderr),
        threads_of_torch(threads),
        _instruction_set(args.isa),
    ):
        report = _measure(
            cases or DEFAULT_CASES,
            names=args.backends,
            rounds=args.repeat,
            more_threads=more_threads,
            dtype=getattr(torch, args.dtype),
            device=device,
        )
    text = json.dumps(report) if args.json else format_report(report)
    sys.stdout.write(f'{text}\n')


@contextmanager
def _instruction_set(name: str | None) -> Iterator[None]:
    """Run with the C kernel on another instruction set, if one is given."""
    if name is None:
        yield
        return
    try:
        before = native.instruction_set()
        native.set_instruction_set(name)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f'--isa: {error}') from error
    try:
        yield
    finally:
        native.set_instruction_set(before)


def _measure(
    cases: Sequence[ScanCase],
    names: Sequence[str] | None,
    rounds: int,
    more_threads: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> dict:
    """All cases on the backends of these names."""
    compute = compute_dtype(torch.empty(0, dtype=dtype))
    backends = select_backends(names, cases, dtype=compute, device=device)
    probes = make_probes(device, dtype=compute)
    entries = []
    for case in cases:
        tell_progress(f'{_words(case)}: {", ".join(backends)}')
        entries.append(
            measure_case(
                case,
                backends,
                probes=probes,
                rounds=rounds,
                more_threads=more_threads,
                dtype=dtype,
                device=device,
            )
        )
    return {
        'machine': describe_machine(device),
        # float64 has one path for all instruction sets.
        'native_isa': (
            native.instruction_set()
            if 'native' in backends and compute == torch.float32
            else None
        ),
        'dtype': str(dtype).removeprefix('torch.'),
        'cases': entries,
    }


if __name__ == '__main__':
    sys.exit(main())
