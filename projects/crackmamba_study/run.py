"""Train the blocks that He and Wang compare, and write their table.

    python projects/crackmamba_study/run.py --dataset cfd --seeds 0 1 2

trains CrackSeU-B with each block in turn (a run that has finished is not
repeated, one that was stopped goes on) and writes the table, with the paper's
columns beside ours. ``--table`` writes it from what has been run so far.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mmseg_crackssm.analysis.benchmark_table import (
    format_table,
    paper_rows,
)
from mmseg_crackssm.analysis.paper_counting import measure_config_as_papers
from mmseg_crackssm.analysis.train_seeds import (
    Run,
    add_run_arguments,
    mean_and_deviation,
    train,
    write_table,
)
from mmseg_crackssm.apis.errors import run_cli

CONFIGS = Path(__file__).resolve().parent / 'configs'
# Block: rows of Tables 2 and 4.
BLOCKS = {
    'conv': 'CrackSeU-B',
    'vim': 'CrackSeU-B + Vim block',
    'vanilla-vss': 'CrackSeU-B + vanilla VSS block',
    'vss': 'CrackSeU-B + VSS block',
    'crackmamba': 'CrackSeU-B + CrackMamba',
}


class Dataset(NamedTuple):
    """What is known of a data set.

    Attributes:
        paper: Its name among the papers' results, '' if the paper has none.
        shape: Height and width at which multiply-accumulates are counted.
    """

    paper: str
    shape: tuple[int, int]


DATASETS = {
    'deepcrack': Dataset('DeepCrack', (544, 384)),
    'steelcrack': Dataset('SteelCrack', (512, 512)),
    'cfd': Dataset('', (320, 480)),
    'synthetic': Dataset('', (256, 256)),
}
SCORES = {'miIoU': 'mi IoU', 'miDice': 'mi Dice', 'F1': 'F1'}


def run_of(out: Path, block: str, dataset: str, seed: int) -> Run:
    """A run of the study.

    Args:
        out: Folder of the runs.
        block: A key of :data:`BLOCKS`.
        dataset: A key of :data:`DATASETS`.
        seed: Seed.
    """
    return Run.inside(out, str(CONFIGS / f'{block}_{dataset}.py'), seed)


def tabulate(
    dataset: str, out: Path, blocks: Sequence[str], seeds: Sequence[int]
) -> tuple[str, dict]:
    """The table of a data set, from the runs that have finished.

    Args:
        dataset: A key of :data:`DATASETS`.
        out: Folder of the runs.
        blocks: Rows.
        seeds: Seeds to look for.

    Returns:
        Markdown, and the same as plain numbers.
    """
    name = DATASETS[dataset].paper
    paper = {row.name: row for row in paper_rows(name)} if name else {}
    head = ['block', 'runs', *SCORES.values(), 'parameters', 'MACs']
    head += ['mi IoU (paper)', 'mi Dice (paper)', 'MACs (paper)']
    cells = [head]
    report = {}
    for block in blocks:
        found = {
            seed: scores
            for seed in seeds
            if (scores := run_of(out, block, dataset, seed).scores())
        }
        cost = measure_config_as_papers(
            CONFIGS / f'{block}_{dataset}.py', DATASETS[dataset].shape
        )
        ours = {
            name: [100 * scores[name] for scores in found.values()]
            for name in SCORES
        }
        printed = paper.get(BLOCKS[block])
        cells.append(
            [
                block,
                str(len(found) or ''),
                *(mean_and_deviation(x, digits=2) for x in ours.values()),
                f'{cost["params"]:,}',
                f'{cost["macs"] / 1e9:.2f} G',
                *(
                    f'{100 * printed.scores[name]:.2f}' if printed else ''
                    for name in ('miIoU', 'miDice')
                ),
                f'{printed.macs / 1e9:.2f} G' if printed else '',
            ]
        )
        report[block] = {
            'seeds': list(found),
            'percent': ours,
            'params': cost['params'],
            'macs': cost['macs'],
        }
    return format_table(cells, 'markdown'), report


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--dataset', choices=DATASETS, default='cfd', help='default: cfd'
    )
    parser.add_argument(
        '--blocks',
        nargs='+',
        choices=BLOCKS,
        default=list(BLOCKS),
        metavar='BLOCK',
        help=f'rows, out of {", ".join(BLOCKS)} (default: all)',
    )
    add_run_arguments(
        parser,
        seeds=(0,),
        out='work_dirs/crackmamba_study',
        example='data_root=DIR',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    if not args.table:
        # Seeds outermost: whenever it is stopped, the rows are comparable.
        runs = [
            run_of(args.out, block, args.dataset, seed)
            for seed in args.seeds
            for block in args.blocks
        ]
        train(runs, args.cfg_options)
    text, report = tabulate(args.dataset, args.out, args.blocks, args.seeds)
    write_table(args.out / f'{args.dataset}.md', text, report)


if __name__ == '__main__':
    sys.exit(main())
