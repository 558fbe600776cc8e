"""What a bug report needs: ``python -m mmseg_crackssm.utils.collect_env``."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mmcv
import mmengine
import mmseg
import torch

from mmseg_crackssm.ops.selective_scan import (
    BACKENDS,
    available_backends,
    unavailable_reason,
)
from mmseg_crackssm.utils.stack import installed_distributions
from mmseg_crackssm.version import __version__

# The instruction sets that decide how fast the CPU paths are.
CPU_FLAGS = (
    'sse4_2',
    'avx',
    'avx2',
    'fma',
    'avx512f',
    'avx512_bf16',
    'amx_bf16',
    'asimd',
    'sve',
)


def collect_env() -> dict[str, str]:
    """Describe the environment.

    Returns:
        Label -> text, in the order of reading. The last entries say which
        backends of the selective scan work, and what the others lack.
    """
    env = {
        'mmseg_crackssm': __version__,
        'Python': f'{platform.python_version()} ({platform.platform()})',
        'Stack': describe_stack(),
        'mmseg': mmseg.__version__,
        'mmengine': mmengine.__version__,
        'mmcv': mmcv.__version__,
        'torch': torch.__version__,
        'torch threads': str(torch.get_num_threads()),
        'CPU kernels of torch': torch.backends.cpu.get_cpu_capability(),
        'CPU flags': ' '.join(cpu_flags()) or 'not known on this system',
        'CUDA': describe_cuda(),
        'Triton': describe_triton(),
    }
    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    for device in devices:
        env[f'Scan backends on {device}'] = ', '.join(
            available_backends(device)
        )
    for name in BACKENDS:
        reason = unavailable_reason(name)
        if reason is not None:
            env[f'Scan backend {name!r} is missing'] = reason
    return env


def describe_stack() -> str:
    """Name the stack and its distributions with versions."""
    stacks = [
        f'{stack} ({", ".join(f"{n} {v}" for n, v in versions.items())})'
        for stack, versions in installed_distributions().items()
    ]
    return ' AND '.join(stacks) or 'imported from source folders'


def describe_cuda() -> str:
    """Name the CUDA devices that torch sees."""
    if not torch.cuda.is_available():
        return 'no device'
    names = [
        torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())
    ]
    return f'{torch.version.cuda or torch.version.hip}: {", ".join(names)}'


def describe_triton() -> str:
    """Version of Triton, which the CPU builds of torch do not bring."""
    try:
        return version('triton')
    except PackageNotFoundError:
        return 'not installed'


def cpu_flags() -> list[str]:
    """Those of ``CPU_FLAGS`` that the CPU has; empty outside Linux."""
    cpuinfo = Path('/proc/cpuinfo')
    if not cpuinfo.exists():
        return []
    words = set(cpuinfo.read_text().split())
    return [flag for flag in CPU_FLAGS if flag in words]


def main() -> None:
    """Write the description to the standard output."""
    lines = [f'{label}: {text}' for label, text in collect_env().items()]
    sys.stdout.write('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
