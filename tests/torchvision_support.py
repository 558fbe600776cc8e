"""torchvision beside a build of torch that its wheel is not made for.

The wheels are made for CUDA's torch. Beside another, such as the CPU build,
their compiled half does not load, and the import fails for two operators that
are not declared. mmpretrain imports it, and OneDL's mmseg imports mmpretrain
where it finds it. No network here calls the two: to declare them is enough.
"""

import importlib
import importlib.util
import sys

import torch

# A library takes its declarations with it when it is collected.
DECLARED = []


def make_torchvision_importable() -> None:
    """Import torchvision, where it is installed, so that others can."""
    if importlib.util.find_spec('torchvision') is None:
        return
    try:
        importlib.import_module('torchvision')
    except RuntimeError:
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for name in ('nms', 'qnms'):
            library.define(
                f'{name}(Tensor dets, Tensor scores, float iou_threshold) '
                '-> Tensor'
            )
        DECLARED.append(library)
        for name in [n for n in sys.modules if n.startswith('torchvision')]:
            if name != __name__:
                del sys.modules[name]
        importlib.import_module('torchvision')
