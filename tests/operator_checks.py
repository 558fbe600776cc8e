"""What the tests of the kernel's operators on maps share."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def run(function, inputs, dy):
    """Output and gradients; those of the inputs that are not None."""
    inputs = [
        None if x is None else x.detach().requires_grad_() for x in inputs
    ]
    y = function(*inputs)
    leaves = [x for x in inputs if x is not None]
    return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(y.dtype))]


def in_double(inputs):
    return [None if x is None else x.double() for x in inputs]


def assert_close(results, expected, tolerance):
    """Largest error relative to the largest value, tensor by tensor."""
    for result, value in zip(results, expected, strict=True):
        assert result.shape == value.shape
        scale = value.abs().max().clamp_min(0.1)
        assert (result - value).abs().max() <= tolerance * scale


def assert_repeats(function, inputs, dy):
    """Bit by bit, on any number of threads."""
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(run(function, inputs, dy))
    for result in results[1:]:
        for x, y in zip(result, results[0], strict=True):
            assert torch.equal(x, y)


class Recorder(TorchDispatchMode):
    """The names of the operators that run, such as 'aten::relu'."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name().partition('.')[0])
        return function(*args, **(kwargs or {}))

    def kernels(self):
        """Those of this package, without their namespace."""
        prefix = 'crackssm::'
        return [
            name.removeprefix(prefix)
            for name in self.names
            if name.startswith(prefix)
        ]
