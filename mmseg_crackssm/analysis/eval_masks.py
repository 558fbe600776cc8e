"""Scores of a folder of predictions made by any program:
``python -m mmseg_crackssm.analysis.eval_masks PRED_DIR GT_DIR``."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prettytable import PrettyTable

from ..apis.errors import UsageError, check_output_file, run_cli
from ..datasets.crack_dataset import COMMON_SUFFIXES, list_names, printable
from ..datasets.transforms import LoadCrackAnnotations
from ..evaluation import CrackScorer, Difference
from ..evaluation.crack_metric import figures_table
from ..evaluation.scorer import PROTOCOLS, SCORE_MAPS
from ..evaluation.tolerance import RADII
from .prediction_files import Pairing, find_pairs, score_pairs


def comparison_table(differences: dict[str, Difference]) -> PrettyTable:
    """Both sets' figures, and how sure their difference is."""
    table = PrettyTable(
        ['figure', 'first', 'second', 'second - first', '95 % interval', 'p']
    )
    table.align = 'r'
    table.align['figure'] = 'l'
    for name, (first, second, interval, share) in differences.items():
        table.add_row(
            [name, f'{first:.4f}', f'{second:.4f}', f'{second - first:+.4f}']
            + ['{:+.4f} to {:+.4f}'.format(*interval), f'{share:.3f}']
        )
    return table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Score a folder of predictions, whatever program made '
        'them, against a folder of labels'
    )
    parser.add_argument(
        'predictions', type=Path, help='score maps or masks, grey images'
    )
    parser.add_argument('labels', type=Path, help='masks of the same names')
    parser.add_argument(
        '--protocol',
        nargs='+',
        choices=(*PROTOCOLS, 'all'),
        default=['crack'],
        help='default: crack',
    )
    parser.add_argument(
        '--score-map',
        choices=SCORE_MAPS,
        default='prob',
        help='what the predictions hold: probabilities or masks, or the '
        '8-bit map of logits that SCSegamba publishes (default: prob)',
    )
    parser.add_argument(
        '--threshold',
        type=float,
        help='where masks, F1, P and R are taken, in [0, 1) (default: 0.5; 0 '
        'of a logit map)',
    )
    parser.add_argument(
        '--radius',
        type=float,
        nargs='+',
        default=RADII,
        metavar='PIXELS',
        help='of the tolerance protocol (default: 2 5)',
    )
    parser.add_argument(
        '--pred-suffix',
        nargs='+',
        default=COMMON_SUFFIXES,
        metavar='S',
        help='what the names of predictions end in, e.g. _prob.png',
    )
    parser.add_argument(
        '--gt-suffix',
        nargs='+',
        default=COMMON_SUFFIXES,
        metavar='S',
        help='what the names of labels end in',
    )
    meaning = parser.add_mutually_exclusive_group()
    meaning.add_argument(
        '--gt-threshold',
        type=int,
        metavar='LEVEL',
        help='labels above this grey level are crack; needed where masks are '
        'neither 0/1 nor 0/255',
    )
    meaning.add_argument(
        '--gt-crack-values',
        type=int,
        nargs='+',
        metavar='LEVEL',
        help='grey levels of the labels that are crack, all others being '
        'background; 0 where cracks are dark',
    )
    parser.add_argument(
        '--gt-ignore-values',
        type=int,
        nargs='+',
        default=(),
        metavar='LEVEL',
        help='grey levels of the labels that do not count',
    )
    parser.add_argument(
        '--skip-unpaired',
        action='store_true',
        help='leave files out that have no counterpart, instead of failing',
    )
    parser.add_argument(
        '--compare',
        type=Path,
        metavar='OTHER_DIR',
        help='a second folder of predictions of the same images',
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=1000,
        help='resamplings for the intervals (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of these')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the figures there'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code.
    """
    return run_cli(partial(_run, parse_args(argv)))


def _run(args: argparse.Namespace) -> None:
    if args.rounds < 0:
        raise UsageError(f'--rounds: expected at least 0, got {args.rounds}')
    if args.json:
        check_output_file(args.json, '--json')
    protocols = PROTOCOLS if 'all' in args.protocol else args.protocol
    if 'image' in protocols and args.score_map == 'logit':
        others = [x for x in PROTOCOLS if x != 'image']
        raise UsageError(
            'the image protocol needs probabilities, which --score-map logit '
            f'does not hold: give --protocol {" ".join(others)}'
        )
    try:
        scorer = CrackScorer(
            protocols=protocols,
            score_map=args.score_map,
            threshold=args.threshold,
            radii=args.radius,
        )
        loader = LoadCrackAnnotations(
            threshold=args.gt_threshold,
            crack_values=args.gt_crack_values,
            ignore_values=args.gt_ignore_values,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    pairings = [
        _pairs_of(args, folder)
        for folder in (args.predictions, args.compare)
        if folder
    ]
    pairs, others = pairings[0].pairs, pairings[-1].pairs
    if [x.label for x in others] != [x.label for x in pairs]:
        labels = {x.label for x in pairs} ^ {x.label for x in others}
        raise UsageError(
            f'{printable(args.predictions)} and {printable(args.compare)} '
            'are not of the same images: only one of them has '
            + list_names(sorted(x.name for x in labels))
        )
    records = score_pairs(scorer, pairs, loader, progress=True)
    figures = scorer.figures(records, rounds=args.rounds, seed=args.seed)
    left_out = (
        f', {figures.num_left_out} more have no pixel that counts'
        if figures.num_left_out
        else ''
    )
    text = [
        f'{figures.num_images} images scored{left_out}; score map '
        f'{scorer.score_map}, threshold {scorer.threshold:g}',
        *(f'Skipped: {x.problems()}' for x in pairings if x.problems()),
        figures_table(figures).get_string(),
    ]
    report = {
        **figures.values,
        'intervals': {k: list(v) for k, v in figures.intervals.items()},
        'num_images': figures.num_images,
        'num_left_out': figures.num_left_out,
        'skipped': {
            'predictions': [printable(x) for x in pairings[0].predictions],
            'labels': [printable(x) for x in pairings[0].labels],
        },
        'protocols': list(scorer.protocols),
        'score_map': scorer.score_map,
        'threshold': scorer.threshold,
        'rounds': args.rounds,
        'seed': args.seed,
    }
    if args.compare:
        other_records = score_pairs(scorer, others, loader, progress=True)
        differences = scorer.compare(
            records, other_records, rounds=args.rounds or 1000, seed=args.seed
        )
        text += [
            f'first: {printable(args.predictions)}, second: '
            f'{printable(args.compare)}',
            comparison_table(differences).get_string(),
            'p: twice the share of resamplings in which the sign differs.',
        ]
        report['compare'] = {k: x._asdict() for k, x in differences.items()}
    sys.stdout.write('\n'.join(text) + '\n')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps(_without_nan(report), indent=1) + '\n', encoding='utf-8'
        )


def _pairs_of(args: argparse.Namespace, predictions: Path) -> Pairing:
    return find_pairs(
        predictions,
        args.labels,
        pred_suffix=args.pred_suffix,
        gt_suffix=args.gt_suffix,
        skip_unpaired=args.skip_unpaired,
    )


def _without_nan(value: object) -> object:
    """The same with null for nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(x) for x in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


if __name__ == '__main__':
    sys.exit(main())
