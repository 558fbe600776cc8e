from collections.abc import Mapping

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn

from .build_optimizer import build_optimizer


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoDecayOptimWrapperConstructor:
    """Two parameter groups: with and without weight decay.

    Vectors and scalars (biases, norms, the skip weight D of an S6) and the
    parameters named in ``no_decay`` are not decayed. mmengine's default
    constructor can say the same, but makes one group for each parameter,
    which slows the optimiser down and writes two log lines for each of them.
    The optimiser is fused where torch has that (:func:`build_optimizer`).

    Args:
        optim_wrapper_cfg: Config of the optimiser wrapper, with the key
            ``optimizer``.
        paramwise_cfg: May hold ``no_decay``: last components of parameter
            names, such as ``'A_log'``.
    """

    def __init__(
        self, optim_wrapper_cfg: Mapping, paramwise_cfg: Mapping | None = None
    ) -> None:
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop('optimizer'))
        paramwise_cfg = dict(paramwise_cfg or {})
        self.no_decay = tuple(paramwise_cfg.pop('no_decay', ()))
        if paramwise_cfg:
            raise ValueError(
                f'{type(self).__name__} knows no paramwise_cfg keys '
                f"{sorted(paramwise_cfg)}: use no_decay, or mmengine's "
                'DefaultOptimWrapperConstructor'
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser of ``model`` and its wrapper."""
        if is_model_wrapper(model):
            model = model.module
        decay, no_decay = [], []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            exempt = name.rpartition('.')[2] in self.no_decay
            group = no_decay if exempt or parameter.ndim <= 1 else decay
            group.append(parameter)
        groups = [
            dict(params=decay),
            dict(params=no_decay, weight_decay=0.0),
        ]
        optimizer = build_optimizer(
            dict(
                self.optimizer_cfg,
                params=[group for group in groups if group['params']],
            )
        )
        wrapper_cfg = dict(self.wrapper_cfg)
        wrapper_cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(
            wrapper_cfg, default_args=dict(optimizer=optimizer)
        )
