"""The result of the networks' benchmark as text for people."""

from collections.abc import Sequence

from prettytable import PrettyTable

from .measure import format_machine, format_mebi

# Modules to list, by time.
TOP_MODULES = 15


def format_report(report: dict) -> str:
    """Tables of a result of ``measure_networks``."""
    lines = [
        format_machine(report['machine'])
        + (', autocast to bfloat16' if report['amp'] else ''),
        str(_rows_table(report['rows'])),
        'ratio: median over that of the first config. extra: peak memory '
        'beyond model,\noptimiser and images. MACs are those of one image at '
        'inference.',
    ]
    lines += [
        f'{name} is left out: {reason}'
        for name, reason in report.get('left_out', {}).items()
    ]
    if report['exponents']:
        lines.append(str(_exponents_table(report['exponents'])))
    for profile in report.get('profiles', ()):
        height, width = profile['shape']
        lines += [
            '',
            f'{profile["config"]}, {profile["mode"]}, {height} x {width}',
            str(_operators_table(profile['operators'])),
        ]
        if 'modules' in profile:
            lines.append(str(_modules_table(profile['modules'])))
    return '\n'.join(lines)


def _rows_table(rows: Sequence[dict]) -> PrettyTable:
    table = _table(
        'mode',
        'config',
        'H x W',
        'batch',
        'params M',
        'GMACs',
        'median ms',
        'p90 ms',
        'images/s',
        'extra MiB',
        'ratio',
        texts=2,
    )
    for row in rows:
        table.add_row(
            [
                row['mode'],
                row['config'],
                '{} x {}'.format(*row['shape']),
                row['batch'],
                f'{row["params"] / 1e6:.2f}',
                f'{row["macs"] / 1e9:.2f}',
                f'{row["median_s"] * 1e3:.1f}',
                f'{row["p90_s"] * 1e3:.1f}',
                f'{row["images_per_second"]:.2f}',
                format_mebi(row['extra_bytes']),
                f'{row["ratio"]:.2f}',
            ]
        )
    return table


def _exponents_table(exponents: Sequence[dict]) -> PrettyTable:
    table = _table(
        'mode',
        'config',
        'time ~ pixels ^',
        'extra memory ~ pixels ^',
        texts=2,
    )
    for row in exponents:
        memory = row['memory']
        table.add_row(
            [
                row['mode'],
                row['config'],
                f'{row["time"]:.2f}',
                '-' if memory is None else f'{memory:.2f}',
            ]
        )
    return table


def _operators_table(operators: dict[str, dict]) -> PrettyTable:
    table = _table('kind of operator', 'ms', 'share', 'calls')
    by_time = sorted(operators.items(), key=lambda x: -x[1]['seconds'])
    for kind, row in by_time:
        table.add_row(
            [
                kind,
                f'{row["seconds"] * 1e3:.2f}',
                f'{row["share"]:.1%}',
                row['calls'],
            ]
        )
    return table


def _modules_table(modules: Sequence[dict]) -> PrettyTable:
    table = _table('module', 'type', 'calls', 'self ms', 'share', texts=2)
    total = sum(row['self_s'] for row in modules)
    for row in modules[:TOP_MODULES]:
        table.add_row(
            [
                row['module'],
                row['type'],
                f'{row["calls"]:g}',
                f'{row["self_s"] * 1e3:.2f}',
                f'{row["self_s"] / total:.1%}',
            ]
        )
    return table


def _table(*fields: str, texts: int = 1) -> PrettyTable:
    """An empty table, its first columns for texts, the others for numbers."""
    table = PrettyTable(fields)
    table.align = 'r'
    for field in fields[:texts]:
        table.align[field] = 'l'
    return table
