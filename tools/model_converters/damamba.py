"""Convert the released DAMamba checkpoints for DAMamba.

The files are linked from the README of ltzovo/DAMamba.
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
from mmseg_crackssm.models.backbones.damamba import ARCHITECTURES, resolve_arch

CLASSIFIER = re.compile(r'head\.')
STEM = re.compile(r'stem\.(\d+)\.(\w+)')
DOWNSAMPLE = re.compile(r'stages\.([1-9])\.downsample\.([01])\.(\w+)')
BLOCK = re.compile(r'stages\.(\d+)\.blocks\.(\d+)\.(.+)')
OUT_NORM = re.compile(r'norm([1-9])\.norm\.(\w+)')

# Each position in the released Sequential, and in ours.
STEM_MODULES = {
    '0': '0.conv',
    '1': '0.norm',
    '3': '2.conv',
    '4': '2.norm',
    '6': '4.conv',
    '7': '4.norm',
    '9': '6.conv',
    '10': '6.norm',
}
MIXER_PARAMETERS = {
    'x_proj_weight': 's6.x_proj_weight',
    'dt_projs_weight': 's6.dt_proj_weight',
    'dt_projs_bias': 's6.dt_proj_bias',
    'A_logs': 's6.A_log',
    'Ds': 's6.D',
}
# Without the parameter, which keeps its name.
BLOCK_MODULES = {
    'pos_embed.conv': 'pos_embed',
    'norm1.norm': 'norm1',
    'norm2': 'norm2',
    'token_mixer.in_proj': 'mixer.in_proj',
    'token_mixer.conv2d': 'mixer.conv',
    'token_mixer.out_norm.norm': 'mixer.out_norm',
    'token_mixer.out_proj': 'mixer.out_proj',
    'token_mixer.da_scan.dw_conv.0': 'mixer.das.conv',
    'token_mixer.da_scan.dw_conv.1.1': 'mixer.das.norm',
    'token_mixer.da_scan.offset': 'mixer.das.offset',
    'mlp.fc1': 'ffn.fc1',
    'mlp.conv': 'ffn.conv',
    'mlp.conv.conv': 'ffn.conv',
    'mlp.fc2': 'ffn.fc2',
}
BLOCK_PARAMETERS = {
    'layer_scale_1': 'scale1.weight',
    'layer_scale_2': 'scale2.weight',
    'pos_embed.conv_constant': 'pos_embed.identity',
    'mlp.conv.conv_constant': 'ffn.conv.identity',
    **{
        f'token_mixer.{name}': f'mixer.{new}'
        for name, new in MIXER_PARAMETERS.items()
    },
}
# S6 has one more axis, of the sequences, which are one.
ONE_SEQUENCE = re.compile(
    r'.*\.s6\.(x_proj_weight|dt_proj_weight|dt_proj_bias)'
)


def convert_block(name: str) -> str | None:
    """The new name of a parameter inside a block, None if unknown."""
    if name in BLOCK_PARAMETERS:
        return BLOCK_PARAMETERS[name]
    module, _, parameter = name.rpartition('.')
    known = BLOCK_MODULES.get(module)
    return known and f'{known}.{parameter}'


def convert_key(key: str) -> str | None:
    """The name in our DAMamba of one released parameter or buffer.

    Args:
        key: The released code's name.

    Returns:
        The name, or None if ``key`` is none of the backbone's.
    """
    if match := BLOCK.fullmatch(key):
        name = convert_block(match[3])
        return name and f'stages.{match[1]}.{match[2]}.{name}'
    if match := DOWNSAMPLE.fullmatch(key):
        part = 'conv' if match[2] == '0' else 'norm'
        return f'downsamples.{int(match[1]) - 1}.{part}.{match[3]}'
    if match := STEM.fullmatch(key):
        module = STEM_MODULES.get(match[1])
        return module and f'stem.{module}.{match[2]}'
    if match := OUT_NORM.fullmatch(key):
        return f'norms.{int(match[1]) - 1}.{match[2]}'
    return None


def convert(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the parameters of a released DAMamba checkpoint.

    Args:
        checkpoint: The parameters of a classifier, a segmentor or a backbone,
            bare or under 'state_dict' or 'model'.

    Returns:
        A new dict for ``DAMamba``, without the classifier.

    Raises:
        ValueError: If the keys are not those of a DAMamba checkpoint.
    """
    source = unwrap_backbone(checkpoint)
    converted, unknown = {}, []
    for key, value in source.items():
        if CLASSIFIER.match(key):
            continue
        name = convert_key(key)
        if name is None:
            unknown.append(key)
            continue
        converted[name] = (
            value[None] if ONE_SEQUENCE.fullmatch(name) else value
        )
    if unknown or not any(name.startswith('stages.') for name in converted):
        found = unknown or list(source)
        raise ValueError(
            "expected a DAMamba checkpoint, with keys like 'stages.0.blocks.0."
            f"token_mixer.Ds', got {len(found)} that are none of its keys, "
            f'such as {found[:3]}. Take a classification or segmentation '
            'checkpoint of ltzovo/DAMamba.'
        )
    return converted


def convert_classifier(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the parameters of a released classifier, its head among them.

    Args:
        checkpoint: As of :func:`convert`, of a classifier.

    Returns:
        A new dict for mmpretrain's ``ImageClassifier`` with ``DAMamba`` and
        ``LinearClsHead``.

    Raises:
        ValueError: As :func:`convert`, or if there is no head.
    """
    head = {
        key: value
        for key, value in unwrap_backbone(checkpoint).items()
        if CLASSIFIER.match(key)
    }
    if not head:
        raise ValueError(
            "expected a classifier, with keys like 'head.fc.weight', got a "
            'checkpoint without: leave out --classifier'
        )
    backbone = convert(checkpoint)
    return {**{f'backbone.{k}': v for k, v in backbone.items()}, **head}


def infer_arch(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The architecture that converted weights belong to.

    Returns:
        A dict as
        :func:`~mmseg_crackssm.models.backbones.damamba.resolve_arch` returns.
    """
    blocks = [
        tuple(map(int, key.split('.')[1:3]))
        for key in weights
        if key.startswith('stages.')
    ]
    stages = range(1 + max(stage for stage, _ in blocks))
    channels = tuple(
        weights[f'stages.{i}.0.norm1.weight'].numel() for i in stages
    )
    groups = weights['stages.0.0.mixer.das.offset.weight'].shape[0] // 2
    return dict(
        channels=channels,
        depths=tuple(
            1 + max(block for stage, block in blocks if stage == i)
            for i in stages
        ),
        mlp_ratios=tuple(
            weights[f'stages.{i}.0.ffn.fc1.weight'].shape[0] // channels[i]
            for i in stages
        ),
        head_dim=channels[0] // groups,
        scaled_stages=tuple(
            i for i in stages if f'stages.{i}.0.scale1.weight' in weights
        ),
    )


def describe(weights: Mapping[str, Tensor], path: str) -> str:
    """How a config takes converted weights from a file."""
    return describe_backbone(
        'DAMamba',
        infer_arch(weights),
        {name: resolve_arch(name) for name in ARCHITECTURES},
        path,
    )


main = partial(
    run_converter,
    convert,
    describe,
    'Convert a released DAMamba checkpoint for DAMamba',
    convert_classifier=convert_classifier,
)

if __name__ == '__main__':
    main()
