"""Index tensors that are computed once per size and device."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode


class TensorCache:
    """The most recently used constant tensors, by key; any thread may ask.

    A tensor made while something watches or replaces torch's operators (a
    trace, fake tensors, a FLOP counter) belongs to that mode and is not kept.

    Args:
        capacity: Number of tensors kept.
    """

    def __init__(self, capacity: int = 128) -> None:
        self.capacity = capacity
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._tensors)

    def get(self, key: Hashable, build: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, built if need be. Do not write to it.

        Args:
            key: Everything the tensor depends on, its device included.
            build: Makes the tensor.
        """
        if torch.compiler.is_compiling() or _get_current_dispatch_mode():
            return build()
        with self._lock:
            tensor = self._tensors.get(key)
            if tensor is not None:
                self._tensors.move_to_end(key)
                return tensor
        # An inference tensor could not take part in a later backward.
        with torch.inference_mode(False):
            tensor = build()
        with self._lock:
            tensor = self._tensors.setdefault(key, tensor)
            if len(self._tensors) > self.capacity:
                self._tensors.popitem(last=False)
        return tensor


def concrete_device(device: torch.device | str | None) -> torch.device:
    """The device with its index, the CPU for None.

    Args:
        device: Device or its name; 'cuda' means the current CUDA device.
    """
    device = torch.device('cpu' if device is None else device)
    if device.type == 'cpu' or device.index is not None:
        return device
    return torch.empty(0, device=device).device
