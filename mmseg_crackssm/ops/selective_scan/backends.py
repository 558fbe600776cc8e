"""Which implementations of the selective scan exist, and which one runs."""

import importlib
import os
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

ENVIRONMENT_VARIABLE = 'MMSEG_CRACKSSM_SCAN'
# Triton looks at it when it is imported.
TRITON_IS_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


@dataclass(frozen=True)
class Backend:
    """Where an implementation lives and what it computes on.

    Attributes:
        module: Module of this package, imported at its first use. It has
            ``forward``, ``backward`` and ``states_shape`` with the signatures
            of :mod:`.chunked`, and, where the backend is optional,
            ``unavailable_reason()``: None, or what is missing and the command
            that installs it.
        dtypes: Precisions it computes in.
        device_types: Devices it runs on; None means all.
        named_device_types: Devices it runs on when asked for by name, and
            that 'auto' leaves to others.
        max_d_state: Largest state size N; None means any.
        reads_half: Whether it reads bfloat16 and float16 as they are. Others
            get copies in float32.
    """

    module: str
    dtypes: tuple[torch.dtype, ...]
    device_types: tuple[str, ...] | None = None
    named_device_types: tuple[str, ...] = ()
    max_d_state: int | None = None
    reads_half: bool = False

    def load(self) -> ModuleType:
        """Import the module."""
        return importlib.import_module(self.module, package=__package__)

    def serves(
        self,
        device_type: str,
        dtype: torch.dtype,
        d_state: int,
        by_name: bool = False,
    ) -> bool:
        """Whether it can compute this there, once installed."""
        on_device = (
            self.device_types is None
            or device_type in self.device_types
            or (by_name and device_type in self.named_device_types)
        )
        fits = self.max_d_state is None or d_state <= self.max_d_state
        return on_device and dtype in self.dtypes and fits


# In the order in which 'auto' tries them. A new backend is one entry here.
BACKENDS = {
    'triton': Backend(
        module='.triton_backend',
        dtypes=(torch.float32,),
        device_types=('cuda',),
        named_device_types=('cpu',) if TRITON_IS_INTERPRETED else (),
        reads_half=True,
    ),
    'mamba_ssm': Backend(
        module='.mamba_ssm',
        dtypes=(torch.float32,),
        device_types=('cuda',),
        max_d_state=256,
    ),
    'native': Backend(
        module='.native',
        dtypes=(torch.float32, torch.float64),
        device_types=('cpu',),
    ),
    'torch': Backend(module='.chunked', dtypes=(torch.float32, torch.float64)),
}
# Not in the table: it is no operator, torch differentiates its loop.
REFERENCE = 'reference'


def requested_backend(name: str) -> str:
    """Replace 'auto' by what the environment variable asks for, if set."""
    if name != 'auto':
        return name
    return os.environ.get(ENVIRONMENT_VARIABLE) or 'auto'


def resolve_backend(
    name: str, device_type: str, dtype: torch.dtype, d_state: int = 1
) -> str:
    """Name of the backend that serves a request.

    Args:
        name: 'auto' or the name of a backend. 'auto' is what the environment
            variable ``MMSEG_CRACKSSM_SCAN`` says, or else the first usable
            backend.
        device_type: Type of the inputs' device, such as 'cpu'.
        dtype: Precision of the computation.
        d_state: State size N.

    Returns:
        A key of ``BACKENDS``.

    Raises:
        ValueError: There is no such backend, or it does not serve this
            device, precision and state size.
        RuntimeError: The backend is not installed.
    """
    name = requested_backend(name)
    if name == 'auto':
        return _first_usable(device_type, dtype, d_state)
    if name == REFERENCE:
        raise ValueError(
            "backend 'reference' is no single operator, so a traced model "
            'takes it from the argument only: expected '
            f"selective_scan(..., backend='reference'), got "
            f'{ENVIRONMENT_VARIABLE}=reference.'
        )
    if name not in BACKENDS:
        raise ValueError(
            f"backend: expected 'auto', 'reference' or one of "
            f'{sorted(BACKENDS)}, got {name!r} (from the argument or from '
            f'{ENVIRONMENT_VARIABLE}).'
        )
    backend = BACKENDS[name]
    if not backend.serves(device_type, dtype, d_state, by_name=True):
        devices = backend.device_types or ('any',)
        most = backend.max_d_state
        raise ValueError(
            f'backend {name!r} expects device {" or ".join(devices)}, '
            f'precision {" or ".join(map(str, backend.dtypes))} and '
            f'{f"N up to {most}" if most else "any N"}, got {device_type}, '
            f"{dtype} and {d_state}. Use backend='auto'."
        )
    reason = unavailable_reason(name)
    if reason is not None:
        raise RuntimeError(f'backend {name!r} is not available: {reason}')
    return name


def available_backends(device: torch.device | str = 'cpu') -> tuple[str, ...]:
    """Names of the backends that work here for float32 inputs on a device.

    Args:
        device: Device of the inputs.

    Returns:
        Names, in the order in which 'auto' prefers them, then 'reference'.
    """
    device_type = torch.device(device).type
    usable = [
        name
        for name, backend in BACKENDS.items()
        if backend.serves(device_type, torch.float32, d_state=1)
        and unavailable_reason(name) is None
    ]
    return (*usable, REFERENCE)


@cache
def unavailable_reason(name: str) -> str | None:
    """What keeps a backend from running on this machine.

    The look-up happens once per process.

    Args:
        name: A key of ``BACKENDS``.

    Returns:
        None when the backend is usable, else what is missing and how to
        install it.
    """
    try:
        module = BACKENDS[name].load()
    except ImportError as error:
        return f'its module does not import ({error}).'
    check = getattr(module, 'unavailable_reason', None)
    return None if check is None else check()


@cache
def load_backend(name: str) -> ModuleType:
    """Module of a backend.

    Args:
        name: A key of ``BACKENDS``, as :func:`resolve_backend` returns it.
    """
    return BACKENDS[name].load()


def _first_usable(device_type: str, dtype: torch.dtype, d_state: int) -> str:
    for name, backend in BACKENDS.items():
        if (
            backend.serves(device_type, dtype, d_state)
            and unavailable_reason(name) is None
        ):
            return name
    raise ValueError(
        f'expected a precision among torch.float32 and torch.float64, got '
        f'{dtype} on {device_type}.'
    )
