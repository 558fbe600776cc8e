import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn


def has_bfloat16(device_type: str) -> bool:
    """Whether a device calculates in bfloat16 faster than in float32.

    Args:
        device_type: 'cpu' (true from AVX-512 on x86-64), 'cuda' (true from
            compute capability 8.0 on), or another, which gives False.
    """
    if device_type == 'cuda':
        return torch.cuda.get_device_capability() >= (8, 0)
    return (
        device_type == 'cpu'
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Mixed precision by bfloat16 autocast, where the device is up to it.

    The same config serves CPU and GPU; mmengine's ``AmpOptimWrapper``
    refuses the CPU. bfloat16 has the exponent range of float32, so no loss
    scaling is needed. On a device that is not faster in bfloat16 everything
    stays in float32, and one line of the log says so.

    Arguments are those of :class:`mmengine.optim.OptimWrapper`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.device_type = get_device()
        self.enabled = has_bfloat16(self.device_type)
        if not self.enabled:
            print_log(
                f'{type(self).__name__}: this {self.device_type} has no fast '
                'bfloat16, training runs in float32',
                logger='current',
                level=logging.WARNING,
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of ``model`` under autocast."""
        autocast = nullcontext()
        if self.enabled:
            autocast = torch.autocast(self.device_type, dtype=torch.bfloat16)
        with super().optim_context(model), autocast:
            yield
