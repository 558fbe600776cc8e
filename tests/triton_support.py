"""How the tests run Triton's kernels where there is no GPU."""

import importlib.util

import numpy as np
import pytest
import torch

from mmseg_crackssm.ops.selective_scan.backends import TRITON_IS_INTERPRETED

INSTALLED = importlib.util.find_spec('triton') is not None
INTERPRETED = INSTALLED and TRITON_IS_INTERPRETED
REASON = (
    'needs triton, and TRITON_INTERPRET=1 in the environment: make test-triton'
)
needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason=REASON)


def mend_interpreter(monkeypatch):
    """Make Triton's interpreter quick in scans, and round as a GPU does."""
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def convert_to_nearest(array, source, target, rounding):
        # It cuts digits off instead.
        if (source.name, target.name) != ('fp32', 'bf16'):
            return convert(array, source, target, rounding)
        rounded = torch.from_numpy(array.copy()).to(torch.bfloat16)
        return rounded.view(torch.int16).numpy().view(np.uint16)

    monkeypatch.setattr(interpreter, '_convert_float', convert_to_nearest)
    monkeypatch.setattr(interpreter.ScanOps, 'generic_scan', scan_by_doubling)


def scan_by_doubling(self, inputs):
    """Associative scan on whole tiles, in the order of a GPU's threads.

    Takes the place of a method of Triton's interpreter that calls the
    combining function for one number after the other.
    """
    tiles = [np.moveaxis(x.handle.data, self.axis, 0).copy() for x in inputs]

    def tensors(arrays):
        return [
            self.to_tensor(np.ascontiguousarray(array), x.dtype)
            for array, x in zip(arrays, inputs, strict=True)
        ]

    shift = 1
    while shift < len(tiles[0]):
        before = [np.roll(tile, shift, axis=0) for tile in tiles]
        combined = self.combine_fn.fn(*tensors(before), *tensors(tiles))
        for tile, result in zip(tiles, combined, strict=True):
            tile[shift:] = result.handle.data[shift:]
        shift *= 2
    return tensors(np.moveaxis(tile, 0, self.axis) for tile in tiles)
