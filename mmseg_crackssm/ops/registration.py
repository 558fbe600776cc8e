"""What the package's operators of ``torch.library`` have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Operator(NamedTuple):
    """An operator ``crackssm::<name>``.

    Attributes:
        schema: Arguments and results, without the name.
        kernel: Computes it.
        fake: Its results' shapes and types, for tracing.
        autograd: Kernel of the autograd key, or None: no gradient passes.
    """

    schema: str
    kernel: Callable[..., Any]
    fake: Callable[..., Any]
    autograd: Callable[..., Any] | None = None


def register_operators(
    operators: Mapping[str, Operator], dispatch_key: str = 'CPU'
) -> torch.library.Library:
    """Define operators.

    Args:
        operators: By name.
        dispatch_key: That of their kernels.

    Returns:
        What holds them: it must live as long as they are used.
    """
    library = torch.library.Library('crackssm', 'FRAGMENT')
    for name, operator in operators.items():
        library.define(
            name + operator.schema, tags=(torch.Tag.pt2_compliant_tag,)
        )
        library.impl(name, operator.kernel, dispatch_key)
        torch.library.register_fake(
            f'crackssm::{name}', operator.fake, lib=library
        )
        if operator.autograd is not None:
            library.impl(name, operator.autograd, 'Autograd')
    return library


def differentiated(
    name: str, function: type[torch.autograd.Function]
) -> Callable[..., Any]:
    """Kernel of the autograd key of an operator with a gradient.

    Args:
        name: The operator, which runs where no gradient is needed: then
            nothing is kept for a backward.
        function: Runs where one is.
    """

    def run(*args: Any) -> Any:
        if _needs_gradient(args):
            return function.apply(*args)
        return _below_autograd(name, args)

    return run


def differentiated_once(name: str, message: str) -> Callable[..., Any]:
    """Kernel of the autograd key of a backward, which has no gradient.

    Args:
        name: The operator.
        message: Of the RuntimeError where a gradient is asked for.
    """

    def run(*args: Any) -> Any:
        if _needs_gradient(args):
            raise RuntimeError(message)
        return _below_autograd(name, args)

    return run


def without_absent(
    inputs: Sequence[Tensor | None], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of inputs, None for inputs that are None.

    Operators do not return None, so a backward gives some tensor there.

    Args:
        inputs: Tensors and Nones.
        gradients: One of each.
    """
    return tuple(
        None if tensor is None else gradient
        for tensor, gradient in zip(inputs, gradients, strict=True)
    )


def _needs_gradient(args: tuple[object, ...]) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in args
    )


def _below_autograd(name: str, args: tuple[object, ...]) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return getattr(torch.ops.crackssm, name).default(*args)
