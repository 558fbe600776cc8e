"""One table out of many runs:
``python -m mmseg_crackssm.analysis.benchmark_table WORK_DIRS...``."""

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmengine.config import Config

from ..apis.errors import UsageError, check_output_folder, run_cli
from .flops import measure_config
from .paper_results import PAPER_RESULTS

DEFAULT_SCORES = ('F1', 'P', 'R', 'mIoU', 'ODS', 'OIS')
#: CrackMetric's prefix in the logs of a run.
PREFIX = 'crack/'
FORMATS = ('markdown', 'csv', 'latex')


@dataclass
class Row:
    """One line of the table.

    Attributes:
        name: What was run, or a paper's method.
        scores: By name.
        intervals: By name, where there are any.
        iterations: None if not known.
        params: Number of parameters, None if not known.
        macs: Multiply-accumulates, None if not known.
        source: '' for what was measured here, else the paper and its table.
    """

    name: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    iterations: int | None = None
    params: float | None = None
    macs: float | None = None
    source: str = ''


def read_run(path: Path, shape: tuple[int, int] | None = None) -> Row:
    """Read the last scores of a work dir, or a JSON file of ``eval_masks``.

    Args:
        path: Work dir of a training or a test, or the JSON file.
        shape: Height and width to count multiply-accumulates at; None leaves
            size and cost of the network out.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        UsageError: If no scores are there.
    """
    if path.is_file():
        return _read_json(path)
    if not path.is_dir():
        raise FileNotFoundError(f'{path} is neither a work dir nor a file')
    lines = _last_scores(path)
    if lines is None:
        raise UsageError(
            f'{path} holds no scores: expected a work dir of tools/train.py '
            f'or tools/test.py, whose config has CrackMetric, after its last '
            'validation'
        )
    scores, iterations = lines
    row = Row(path.name, *_split_intervals(scores), iterations=iterations)
    configs = sorted(path.glob('*.py'))
    if configs:
        row.name = configs[0].stem
        if shape is not None:
            size = measure_config(Config.fromfile(str(configs[0])), shape)
            row.params, row.macs = size['params'], size['macs']
    return row


def _last_scores(path: Path) -> tuple[dict[str, float], int | None] | None:
    """Scores and iteration of the newest log that has any."""
    logs = [
        *path.glob('*/vis_data/scalars.json'),
        # What a test writes.
        *path.glob('*/*.json'),
    ]
    for log in sorted(logs, key=lambda x: x.stat().st_mtime, reverse=True):
        for line in reversed(log.read_text(encoding='utf-8').splitlines()):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            scores = {
                name.removeprefix(PREFIX): value
                for name, value in entry.items()
                if name.startswith(PREFIX)
            }
            if scores:
                step = entry.get('step')
                return scores, step if isinstance(step, int) else None
    return None


def _split_intervals(
    scores: dict[str, float],
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Figures, and their bounds, which the metric logs as ``F1_low``."""
    intervals = {
        name: (scores[f'{name}_low'], scores[f'{name}_high'])
        for name in scores
        if f'{name}_low' in scores
    }
    bounds = {f'{name}_{end}' for name in intervals for end in ('low', 'high')}
    return {k: v for k, v in scores.items() if k not in bounds}, intervals


def _read_json(path: Path) -> Row:
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        values = {
            name: value
            for name, value in report.items()
            if isinstance(value, (int, float))
            and name not in ('num_images', 'num_left_out', 'rounds', 'seed')
        }
        intervals = {k: tuple(v) for k, v in report['intervals'].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f'{path} is no result of eval_masks.py --json '
            f'({type(error).__name__}: {error})'
        ) from error
    return Row(path.stem, values, intervals)


def paper_rows(dataset: str) -> list[Row]:
    """What papers print for a data set.

    Raises:
        UsageError: If there is nothing for it.
    """
    known = sorted({result.dataset for result in PAPER_RESULTS})
    if dataset not in known:
        raise UsageError(
            f'--paper: expected one of {", ".join(known)}, got {dataset!r}'
        )
    return [
        Row(
            name=result.method,
            scores=result.scores,
            intervals={},
            params=result.params,
            macs=result.macs,
            source=result.source,
        )
        for result in PAPER_RESULTS
        if result.dataset == dataset
    ]


def table_cells(
    rows: Sequence[Row], names: Sequence[str], with_intervals: bool
) -> list[list[str]]:
    """The table as text, its head first; empty cells where nothing is known.

    Args:
        rows: Lines.
        names: Scores to show.
        with_intervals: Whether to put the interval behind each score.
    """
    cells = [['model', 'params', 'MACs', 'iterations', *names, 'source']]
    for row in rows:
        line = [
            row.name,
            '' if row.params is None else f'{row.params / 1e6:.2f} M',
            '' if row.macs is None else f'{row.macs / 1e9:.2f} G',
            '' if row.iterations is None else str(row.iterations),
        ]
        for name in names:
            value = row.scores.get(name)
            text = '' if value is None else f'{value:.4f}'
            if with_intervals and name in row.intervals:
                text += ' ({:.4f} to {:.4f})'.format(*row.intervals[name])
            line.append(text)
        cells.append([*line, row.source or 'measured'])
    return cells


def format_table(cells: Sequence[Sequence[str]], kind: str) -> str:
    """Cells as Markdown, CSV or LaTeX (booktabs)."""
    if kind == 'csv':
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows(cells)
        return text.getvalue()
    head, *body = cells
    if kind == 'markdown':
        rows = [head, ['---'] * len(head), *body]
        return ''.join(f'| {" | ".join(row)} |\n' for row in rows)
    lines = [f'\\begin{{tabular}}{{l{"r" * (len(head) - 2)}l}}', '\\toprule']
    for index, row in enumerate([head, *body]):
        escaped = (x.replace('_', r'\_').replace('%', r'\%') for x in row)
        lines.append(f'{" & ".join(escaped)} \\\\')
        if index == 0:
            lines.append('\\midrule')
    return '\n'.join([*lines, '\\bottomrule', '\\end{tabular}', ''])


def draw_figure(rows: Sequence[Row], name: str, path: Path) -> None:
    """Draw a score against multiply-accumulates.

    Args:
        rows: Lines; those without cost or without the score are left out.
        name: The score.
        path: Picture to write.

    Raises:
        UsageError: If no line has both.
    """
    points = [
        (row.macs / 1e9, row.scores[name], row)
        for row in rows
        if row.macs is not None
        and not math.isnan(row.scores.get(name, math.nan))
    ]
    if not points:
        raise UsageError(
            f'--figure: no line has both MACs and {name}: give --shape, and '
            'a score that is there by --scores'
        )
    # Slow to import, and needed here alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    for is_paper, marker in ((False, 'o'), (True, 'x')):
        some = [point for point in points if bool(point[2].source) == is_paper]
        axes.scatter(
            [x for x, _, _ in some],
            [y for _, y, _ in some],
            marker=marker,
            label='paper' if is_paper else 'measured here',
        )
    for macs, score, row in points:
        axes.annotate(
            row.name, (macs, score), fontsize=7, xytext=(4, 3),
            textcoords='offset points',
        )  # fmt: skip
        if name in row.intervals:
            low, high = row.intervals[name]
            axes.plot([macs, macs], [low, high], linewidth=1, color='grey')
    axes.set(xscale='log', xlabel='multiply-accumulates, G', ylabel=name)
    axes.legend()
    figure.savefig(path, dpi=150)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Collect the last scores of several runs into one table'
    )
    parser.add_argument(
        'runs',
        type=Path,
        nargs='+',
        help='work dirs, or JSON files of eval_masks.py',
    )
    parser.add_argument(
        '--scores',
        nargs='+',
        default=DEFAULT_SCORES,
        metavar='NAME',
        help=f'default: {" ".join(DEFAULT_SCORES)}',
    )
    parser.add_argument(
        '--paper',
        metavar='DATASET',
        help="papers' figures for this data set beside them",
    )
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="count the networks' parameters and multiply-accumulates there",
    )
    parser.add_argument('--format', choices=FORMATS, default='markdown')
    parser.add_argument(
        '--no-intervals', action='store_true', help='scores alone'
    )
    parser.add_argument(
        '--figure',
        type=Path,
        metavar='PNG',
        help='draw the first score against multiply-accumulates',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    if args.figure:
        check_output_folder(args.figure.parent, '--figure')
    rows = paper_rows(args.paper) if args.paper else []
    shape = tuple(args.shape) if args.shape else None
    rows = [*(read_run(path, shape) for path in args.runs), *rows]
    cells = table_cells(rows, args.scores, not args.no_intervals)
    sys.stdout.write(format_table(cells, args.format))
    if args.figure:
        args.figure.parent.mkdir(parents=True, exist_ok=True)
        draw_figure(rows, args.scores[0], args.figure)


if __name__ == '__main__':
    sys.exit(main())
