"""Configs against one another over several seeds.

    python tools/analysis/train_seeds.py CONFIG... --seeds 0 1 2 --out DIR

One run says little where a point of F1 is the luck of a seed. This trains
every config with every seed (a run that has finished is not repeated, one
that was stopped goes on) and writes mean and standard deviation of the
scores, and the difference to the first config over the seeds that both have.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..apis.errors import UsageError, check_output_folder, run_cli
from .benchmark_table import DEFAULT_SCORES, format_table, read_run

#: File in the work dir of a run that has finished; it holds the options.
FINISHED = 'finished.json'


class Run(NamedTuple):
    """One training.

    Attributes:
        config: Path of the config, or the name of a shipped one.
        seed: Seed.
        work_dir: Where its log and checkpoints go.
    """

    config: str
    seed: int
    work_dir: Path

    @classmethod
    def inside(cls, out: Path, config: str, seed: int) -> 'Run':
        """The run of a config and a seed in a folder of runs."""
        return cls(config, seed, out / f'{Path(config).stem}_seed{seed}')

    @property
    def finished(self) -> bool:
        """Whether it has been trained and validated."""
        return (self.work_dir / FINISHED).is_file()

    def scores(self) -> dict[str, float] | None:
        """Its last scores, None unless it has finished."""
        return read_run(self.work_dir).scores if self.finished else None


def train(runs: Sequence[Run], options: Sequence[str] = ()) -> None:
    """Train and validate each run that has not finished.

    Each in a process of its own, one after the other; a run that was stopped
    goes on.

    Args:
        runs: The runs.
        options: ``--cfg-options`` of all of them.

    Raises:
        UsageError: If a training fails, which has told why, or a run has
            finished with other options.
    """
    for run in runs:
        if run.finished:
            text = (run.work_dir / FINISHED).read_text(encoding='utf-8')
            before = json.loads(text)['options']
            if before != list(options):
                raise UsageError(
                    f'{run.work_dir} was trained with --cfg-options '
                    f'{before or "none"}, not {list(options) or "none"}: '
                    'give another --out, or --table to read what is there'
                )
    todo = [run for run in runs if not run.finished]
    for number, run in enumerate(todo, start=1):
        sys.stderr.write(f'run {number} of {len(todo)}: {run.work_dir.name}\n')
        command = [sys.executable, '-m', 'mmseg_crackssm.apis.train']
        command += [run.config, '--work-dir', str(run.work_dir)]
        command += ['--seed', str(run.seed), '--resume']
        if options:
            command += ['--cfg-options', *options]
        if subprocess.run(command, check=False).returncode != 0:
            raise UsageError(
                f'training {run.work_dir.name} failed, see above; the same '
                'command goes on from there'
            )
        text = json.dumps({'options': list(options)})
        (run.work_dir / FINISHED).write_text(text, encoding='utf-8')


def mean_and_deviation(
    values: Sequence[float], digits: int = 4, signed: bool = False
) -> str:
    """Mean ± standard deviation as text; '' for nothing.

    Args:
        values: Of the seeds.
        digits: Behind the point.
        signed: Whether to write a plus before what is positive.
    """
    if not values:
        return ''
    text = f'{statistics.mean(values):{"+" if signed else ""}.{digits}f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.{digits}f}'
    return text


def tabulate(
    runs: Sequence[Run], names: Sequence[str]
) -> tuple[list[list[str]], dict]:
    """Mean and deviation of the runs that have finished.

    Args:
        runs: The runs; those of one config make a row.
        names: Scores to show. The difference is that of the first.

    Returns:
        Cells, their head first, and the numbers of the seeds by config.

    Raises:
        UsageError: If a run lacks one of the scores.
    """
    report: dict[str, dict[int, dict[str, float]]] = {}
    for run in runs:
        found = report.setdefault(Path(run.config).stem, {})
        scores = run.scores()
        if scores is None:
            continue
        missing = [name for name in names if name not in scores]
        if missing:
            raise UsageError(
                f'{run.work_dir} has no {", ".join(missing)}: expected '
                f'--scores out of {", ".join(scores)}'
            )
        found[run.seed] = {name: scores[name] for name in names}
    first, *_ = report.values()
    cells = [['config', 'runs', *names, f'{names[0]} beyond the first']]
    for config, found in report.items():
        gains = [
            scores[names[0]] - first[seed][names[0]]
            for seed, scores in found.items()
            if seed in first and found is not first
        ]
        means = (
            mean_and_deviation([x[name] for x in found.values()])
            for name in names
        )
        cells.append(
            [
                config,
                str(len(found)),
                *means,
                mean_and_deviation(gains, signed=True),
            ]
        )
    return cells, report


def write_table(target: Path, text: str, report: dict) -> None:
    """Write a table and, beside it, its numbers; show the table.

    Args:
        target: The Markdown file.
        text: The table.
        report: Its numbers.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding='utf-8')
    target.with_suffix('.json').write_text(
        json.dumps(report, indent=1) + '\n', encoding='utf-8'
    )
    sys.stdout.write(f'{text}\nwritten to {target}\n')


def add_run_arguments(
    parser: argparse.ArgumentParser,
    seeds: Sequence[int],
    out: str,
    example: str,
) -> None:
    """Arguments of a command that trains runs and tabulates them.

    Args:
        parser: Gets ``--seeds``, ``--out``, ``--table``, ``--cfg-options``.
        seeds: Default of ``--seeds``.
        out: Default of ``--out``.
        example: Of ``--cfg-options``, for the help.
    """
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        default=list(seeds),
        help=f'one run each (default: {" ".join(map(str, seeds))})',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path(out),
        help='folder of the runs and of the table (default: %(default)s)',
    )
    parser.add_argument(
        '--table',
        action='store_true',
        help='train nothing, tabulate what has finished',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help=f'settings of all runs, such as {example}',
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Train several configs with several seeds, and write '
        'mean and standard deviation of their scores'
    )
    parser.add_argument(
        'configs', nargs='+', help='configs, or names of shipped ones'
    )
    parser.add_argument(
        '--scores',
        nargs='+',
        default=list(DEFAULT_SCORES),
        metavar='NAME',
        help=f'default: {" ".join(DEFAULT_SCORES)}',
    )
    add_run_arguments(
        parser,
        seeds=(0, 1, 2),
        out='work_dirs/seeds',
        example='default_hooks.time_budget.iterations=1200',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    stems = [Path(config).stem for config in args.configs]
    if len(set(stems)) < len(stems):
        raise UsageError(
            f'configs: expected different names, got {", ".join(stems)}'
        )
    check_output_folder(args.out, '--out')
    # Seeds outermost: whenever it is stopped, the rows are comparable.
    runs = [
        Run.inside(args.out, config, seed)
        for seed in args.seeds
        for config in args.configs
    ]
    if not args.table:
        train(runs, args.cfg_options)
    cells, report = tabulate(runs, args.scores)
    text = format_table(cells, 'markdown')
    write_table(args.out / 'seeds.md', text, report)


if __name__ == '__main__':
    sys.exit(main())
