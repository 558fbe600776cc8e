"""Convert the published VMamba checkpoints for VSSBackbone.

The files are on the releases page of MzeroMiko/VMamba.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from mmseg_crackssm.apis.convert_checkpoint import (
    describe_backbone,
    run_converter,
    unwrap_backbone,
)
from mmseg_crackssm.models.backbones.vss import ARCHITECTURES, resolve_arch

DROPPED = re.compile(r'(classifier|head|norm)\.')
BLOCK = re.compile(r'layers\.(\d+)\.blocks\.(\d+)\.(.+)')
DOWNSAMPLE = re.compile(r'layers\.(\d+)\.downsample\.(\w+)\.(\w+)')
PATCH_EMBED = re.compile(r'patch_embed\.(\w+)\.(\w+)')
OUT_NORM = re.compile(r'outnorm(\d+)\.(\w+)')
# Stored as (out, in), or as (out, in, 1, 1) where written as convolutions.
LINEAR = re.compile(r'.*\.(in_proj|out_proj|fc1|fc2|reduction)\.weight')

# Both generations of names: position in a Sequential, or a name.
PATCHIFY_STEM = {'0': 'proj', 'proj': 'proj', '2': 'norm', 'norm': 'norm'}
CONV_STEM = {
    '0': 'conv1',
    'proj': 'conv1',
    '2': 'norm1',
    'norm': 'norm1',
    '5': 'conv2',
    '7': 'norm2',
}
DOWNSAMPLES = {
    'reduction': 'reduction',
    'norm': 'norm',
    '1': 'conv',
    '3': 'norm',
}
BLOCKS = {
    'ln_1': 'norm',
    'norm': 'norm',
    'norm2': 'norm2',
    'mlp': 'mlp',
    'self_attention': 'ss2d',
    'op': 'ss2d',
}
SS2D = {
    'in_proj.weight': 'in_proj.weight',
    'conv2d.weight': 'conv.weight',
    'conv2d.bias': 'conv.bias',
    'x_proj_weight': 's6.x_proj_weight',
    'dt_projs_weight': 's6.dt_proj_weight',
    'dt_projs_bias': 's6.dt_proj_bias',
    'A_logs': 's6.A_log',
    'Ds': 's6.D',
    'out_norm.weight': 'out_norm.weight',
    'out_norm.bias': 'out_norm.bias',
    'out_proj.weight': 'out_proj.weight',
}


def convert_block(name: str) -> str | None:
    """The new name of a parameter inside a block, None if unknown."""
    module, _, rest = name.partition('.')
    if BLOCKS.get(module) == 'ss2d':
        return f'ss2d.{SS2D[rest]}' if rest in SS2D else None
    return f'{BLOCKS[module]}.{rest}' if module in BLOCKS else None


def convert_key(key: str, conv_stem: bool) -> str | None:
    """The name in VSSBackbone of one VMamba parameter.

    Args:
        key: VMamba's name, old or new.
        conv_stem: Whether the checkpoint has the patch embedding v2.

    Returns:
        The name, or None if ``key`` is none of VMamba's.
    """
    if match := BLOCK.fullmatch(key):
        name = convert_block(match[3])
        return name and f'stages.{match[1]}.{match[2]}.{name}'
    if match := DOWNSAMPLE.fullmatch(key):
        name = DOWNSAMPLES.get(match[2])
        return name and f'downsamples.{match[1]}.{name}.{match[3]}'
    if match := PATCH_EMBED.fullmatch(key):
        name = (CONV_STEM if conv_stem else PATCHIFY_STEM).get(match[1])
        return name and f'patch_embed.{name}.{match[2]}'
    if match := OUT_NORM.fullmatch(key):
        return f'norm{match[1]}.{match[2]}'
    return None


def convert(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the parameters of a VMamba checkpoint for VSSBackbone.

    Args:
        state_dict: The parameters, bare or under 'state_dict' or 'model';
            of either block style, in the old names (``self_attention``) or
            the new (``op``); linear weights as (out, in) or (out, in, 1, 1).

    Returns:
        A new dict without the classifier. Output norms are kept where the
        checkpoint has them.

    Raises:
        ValueError: If the keys are not those of a VMamba checkpoint.
    """
    source = unwrap_backbone(state_dict)
    conv_stem = 'patch_embed.5.weight' in source
    converted, unknown = {}, []
    for key, value in source.items():
        if DROPPED.match(key):
            continue
        name = convert_key(key, conv_stem=conv_stem)
        if name is None:
            unknown.append(key)
            continue
        if LINEAR.fullmatch(name):
            value = value.flatten(1)
        converted[name] = value
    if unknown or not any(name.startswith('stages.') for name in converted):
        found = unknown or list(source)
        raise ValueError(
            "expected a VMamba checkpoint, with keys like 'layers.0.blocks.0."
            f"op.x_proj_weight', got {len(found)} that are none of its keys, "
            f'such as {found[:3]}. Take a classification or segmentation '
            'checkpoint from the releases of MzeroMiko/VMamba.'
        )
    return converted


def infer_arch(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The architecture that converted weights belong to.

    Returns:
        A dict as :func:`~mmseg_crackssm.models.backbones.vss.resolve_arch`
        returns.
    """
    blocks = [
        tuple(map(int, key.split('.')[1:3]))
        for key in weights
        if key.startswith('stages.')
    ]
    stages = range(1 + max(stage for stage, _ in blocks))
    A_log = weights['stages.0.0.ss2d.s6.A_log']
    channels = tuple(
        weights[f'stages.{i}.0.norm.weight'].numel() for i in stages
    )
    vanilla = 'stages.0.0.mlp.fc1.weight' not in weights
    return dict(
        channels=channels,
        depths=tuple(
            1 + max(block for stage, block in blocks if stage == i)
            for i in stages
        ),
        block_style='vanilla' if vanilla else 'v05_noz',
        expand=A_log.shape[0] / (4 * channels[0]),
        d_state=A_log.shape[1],
    )


def describe(weights: Mapping[str, Tensor], path: str) -> str:
    """How a config takes converted weights from a file."""
    return describe_backbone(
        'VSSBackbone',
        infer_arch(weights),
        {name: resolve_arch(name) for name in ARCHITECTURES},
        path,
    )


main = partial(
    run_converter,
    convert,
    describe,
    'Convert a VMamba checkpoint for VSSBackbone',
)

if __name__ == '__main__':
    main()
