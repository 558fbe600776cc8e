"""What all converters of published checkpoints share."""

import argparse
import os.path as osp
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.utils import mkdir_or_exist
from torch import Tensor

from .checkpoint import load_weights

WRAPPERS = ('state_dict', 'model')


def unwrap_backbone(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """A backbone's own parameters in a checkpoint.

    Takes off a 'state_dict' or 'model' wrapper, the 'module.' of data
    parallel training and the 'backbone.' of a segmentor, whose other parts
    are left out.
    """
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
    state_dict = {
        key.removeprefix('module.'): value for key, value in checkpoint.items()
    }
    if any(key.startswith('backbone.') for key in state_dict):
        state_dict = {
            key.removeprefix('backbone.'): value
            for key, value in state_dict.items()
            if key.startswith('backbone.')
        }
    return state_dict


def run_converter(
    convert: Callable[[Mapping[str, Any]], dict[str, Tensor]],
    describe: Callable[[dict[str, Tensor], str], str],
    description: str,
    argv: Sequence[str] | None = None,
    convert_classifier: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    | None = None,
) -> None:
    """Convert one file.

    Args:
        convert: Renames the parameters of a published checkpoint; raises
            ``ValueError`` if it is of another model.
        describe: From the converted parameters and the path they are in to
            how to use them.
        description: What the command does.
        argv: The arguments; those of the command line if None.
        convert_classifier: Does the same for a whole classifier of
            mmpretrain's; the command then has ``--classifier``.

    Raises:
        SystemExit: If the file is missing or of another model.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('src', help='the published checkpoint')
    parser.add_argument('dst', help='the file to write')
    parser.add_argument(
        '--unsafe-load',
        action='store_true',
        help='load a file that holds more than weights; it can run code, so '
        'give this only for a source that you trust',
    )
    parser.set_defaults(classifier=False)
    if convert_classifier:
        parser.add_argument(
            '--classifier',
            action='store_true',
            help="keep the head: a checkpoint of mmpretrain's ImageClassifier",
        )
    args = parser.parse_args(argv)
    if args.classifier:
        convert = convert_classifier
    try:
        weights = convert(load_weights(args.src, unsafe=args.unsafe_load))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    mkdir_or_exist(osp.dirname(osp.abspath(args.dst)))
    torch.save(weights, args.dst)
    use = (
        'Give it to mmpretrain as the checkpoint'
        if args.classifier
        else describe(weights, args.dst)
    )
    sys.stdout.write(f'{args.dst}: {len(weights)} tensors. {use}\n')


def describe_backbone(
    name: str,
    arch: Mapping[str, Any],
    presets: Mapping[str, Mapping[str, Any]],
    path: str,
) -> str:
    """How a config takes a converted backbone from a file.

    Args:
        name: The backbone's registered name.
        arch: What the parameters belong to.
        presets: Complete architectures by the names that configs may use.
        path: The file.
    """
    known = [preset for preset, x in presets.items() if x == arch] or [arch]
    return (
        f'Use it as\nbackbone=dict(type={name!r}, arch={known[0]!r}, '
        f"init_cfg=dict(type='Pretrained', checkpoint={path!r}))"
    )
