"""Parameters, MACs and scan FLOPs of a config's model.

MACs are the multiply-accumulates of convolutions, linear maps and matrix
products; with ``--counting paper``, what the counter of the CrackMamba paper
finds of them, with the former beside. Auxiliary heads, which only training
uses, are left out. With ``--json``, standard output holds one JSON object and
nothing else.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout

# What the libraries print, on import too, must not mix with the result.
with redirect_stdout(sys.stderr):
    from mmengine.config import Config, DictAction

    from mmseg_crackssm.analysis import (
        format_report,
        measure_config,
        measure_config_as_papers,
    )

MEASURES = {'operators': measure_config, 'paper': measure_config_as_papers}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[512, 512],
        metavar=('H', 'W'),
        help='height and width of the image, or one number for both '
        '(default: 512 512)',
    )
    parser.add_argument(
        '--counting',
        choices=tuple(MEASURES),
        default='operators',
        help='operators: what runs; paper: by the rules of ptflops 0.6.9, '
        'seeing modules, not functions (default: %(default)s)',
    )
    parser.add_argument(
        '--json', action='store_true', help='print one JSON object'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, as key=value',
    )
    args = parser.parse_args(argv)
    if len(args.shape) > 2 or min(args.shape) < 1:
        parser.error(f'--shape: expected H W or one number, got {args.shape}')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    shape = (args.shape[0], args.shape[-1])
    with redirect_stdout(sys.stderr):
        cfg = Config.fromfile(args.config)
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
        report = MEASURES[args.counting](cfg, shape=shape)
    print(json.dumps(report) if args.json else format_report(report))


if __name__ == '__main__':
    main()
