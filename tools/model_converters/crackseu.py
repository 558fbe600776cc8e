"""Convert published CrackSeU-B checkpoints for this package's configs.

The networks are in hzlbbfrog/CrackSeU, Nets/CrackSeU_B_LN_VT.py and
CrackSeU_B_BN.py.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from mmseg_crackssm.apis.convert_checkpoint import run_converter

# Our name of each module; {norm} is ln or bn.
FIRST_STAGE = {
    'conv1': 'backbone.stages.0.0.conv',
    'norm1': 'backbone.stages.0.0.{norm}',
    'conv2.0': 'backbone.stages.0.2.conv',
}
STAGE = {
    'conv1': 'backbone.stages.{stage}.0.conv',
    'norm1': 'backbone.stages.{stage}.0.{norm}',
    'conv2.0': 'backbone.stages.{stage}.1.conv',
}
OUTPUTS = {
    'min_2x.conv1': 'auxiliary_head.conv.conv',
    'min_2x.norm1': 'auxiliary_head.conv.{norm}',
    'min_2x.conv2': 'auxiliary_head.conv_seg',
    'upsample_1_0.conv1': 'decode_head.upsample',
    'upsample_1_0.conv2': 'decode_head.conv_seg',
}
ATTENTION = {
    'ca.fc1': 'channel_attention.fc1',
    'ca.fc2': 'channel_attention.fc2',
    'sa.conv1': 'spatial_attention.conv',
}
STAGE_MODULE = re.compile(r'conv([1-5])\.(.+)')
UPSAMPLE_MODULE = re.compile(r'upsample_([2345])_[13]\.(conv|norm)')
FUSION_MODULE = re.compile(r'fusion([1-3])\.(.+)')
FUSION_PART = re.compile(r'(conv|norm)([1-5])')


def convert_module(name: str, norm: str) -> str | None:
    """Our name of one of CrackSeU's modules, None if it has none.

    Args:
        name: The released code's name, such as ``fusion1.norm2``.
        norm: ``ln`` or ``bn``.
    """
    if name in OUTPUTS:
        return OUTPUTS[name].format(norm=norm)
    if match := STAGE_MODULE.fullmatch(name):
        stage = int(match[1]) - 1
        names = STAGE if stage else FIRST_STAGE
        known = names.get(match[2])
        return known and known.format(stage=stage, norm=norm)
    if match := UPSAMPLE_MODULE.fullmatch(name):
        part = 'conv' if match[2] == 'conv' else norm
        return f'neck.upsample{match[1]}.conv.{part}'
    if match := FUSION_MODULE.fullmatch(name):
        module = f'neck.fusion{match[1]}'
        if match[2] in ATTENTION:
            return f'{module}.{ATTENTION[match[2]]}'
        if part := FUSION_PART.fullmatch(match[2]):
            kind = 'conv' if part[1] == 'conv' else norm
            return f'{module}.conv{part[2]}.{kind}'
    return None


def convert(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename the parameters of a CrackSeU-B checkpoint.

    Args:
        checkpoint: The parameters, bare or under 'state_dict'; with or
            without the 'module.' of data parallel training.

    Returns:
        A new dict for an ``EncoderDecoder`` of ``configs/crackseu``.

    Raises:
        ValueError: If the keys are not those of CrackSeU-B.
    """
    source = {
        key.removeprefix('module.'): value
        for key, value in checkpoint.get('state_dict', checkpoint).items()
    }
    norm = 'bn' if 'conv1.norm1.running_mean' in source else 'ln'
    converted, unknown = {}, []
    for key, value in source.items():
        module, _, parameter = key.rpartition('.')
        name = convert_module(module, norm=norm)
        if name is None:
            unknown.append(key)
        else:
            converted[f'{name}.{parameter}'] = value
    if unknown or not converted:
        found = unknown or list(source)
        raise ValueError(
            "expected a CrackSeU-B checkpoint, with keys like 'fusion1.conv1."
            f"weight', got {len(found)} that are none of its keys, such as "
            f'{found[:3]}. Take one of hzlbbfrog/CrackSeU without Mamba '
            'blocks'
        )
    return converted


def describe(weights: Mapping[str, Tensor], path: str) -> str:
    """Which configs take converted weights."""
    norm = '-bn' if any('.bn.' in key for key in weights) else ''
    return (
        f'Use it with configs/crackseu/crackseu{norm}_*.py, as the checkpoint '
        'of tools/test.py or in load_from'
    )


main = partial(
    run_converter,
    convert,
    describe,
    'Convert a CrackSeU-B checkpoint for configs/crackseu',
)

if __name__ == '__main__':
    main()
