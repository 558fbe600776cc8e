"""What the Triton kernels compile to, without a GPU.

A process of its own: where Triton interprets kernels it cannot compile them.
Writes one JSON object per kernel, architecture and kind of call.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas

from mmseg_crackssm.ops.selective_scan import triton_backend

ARCHITECTURES = (80, 90)
# Type of u, delta, B and C; state size; length; channels per group, groups;
# whether D and delta_bias are there. A is always float32.
CALLS = (
    ('float32', 16, 256, 64, 4, True),
    ('float32', 8, 196, 32, 1, True),
    ('float32', 1, 256, 32, 1, True),
    ('float32', 3, 197, 5, 2, False),
    ('bfloat16', 16, 256, 64, 4, True),
    ('bfloat16', 1, 256, 16, 1, True),
    ('float16', 3, 197, 5, 2, False),
)


class CompileOnly:
    """Stands in for Triton's driver: a device that nothing runs on."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget('cuda', self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


def call(kind: tuple[str, int, int, int, int, bool], few: bool) -> None:
    """Forward and backward; the kernels are compiled and nothing computed."""
    dtype, d_state, length, per_group, groups, full = kind
    u = torch.zeros(1, per_group * groups, length, dtype=getattr(torch, dtype))
    B = u.new_zeros(1, groups, d_state, length)
    A = torch.zeros(u.shape[1], d_state)
    D = A.new_zeros(u.shape[1]) if full else None
    triton_backend.ENOUGH_PROGRAMS = 1 if few else 10**9
    inputs = (u, u, A, B, B, D, D, full)
    _, states = triton_backend.forward(*inputs, True)
    triton_backend.backward(u, *inputs, states)


def resources(ptx: str, architecture: int) -> dict[str, int]:
    """What ptxas says about registers and spills."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'kernel.ptx'
        path.write_text(ptx)
        log = subprocess.run(
            [
                get_ptxas(architecture).path,
                '-v',
                f'--gpu-name={re.search(r"[.]target (sm_[0-9a-z]+)", ptx)[1]}',
                str(path),
                f'--output-file={path}.cubin',
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stderr
    return {
        'registers': int(re.search(r'Used (\d+) registers', log)[1]),
        'spilled': sum(map(int, re.findall(r'(\d+) bytes spill', log))),
    }


def main() -> None:
    """Compile all kernels for all kinds of calls."""
    compiled = []
    run = triton.JITFunction.run

    def compile_only(kernel, *args, grid, warmup, **kwargs):
        result = run(kernel, *args, grid=grid, warmup=True, **kwargs)
        compiled.append((kernel.__name__, result))

    triton.JITFunction.run = compile_only
    for architecture in ARCHITECTURES:
        triton.runtime.driver.set_active(CompileOnly(architecture))
        for kind in CALLS:
            compiled.clear()
            call(kind, few=True)
            call(kind, few=False)
            for name, kernel in {id(k): (n, k) for n, k in compiled}.values():
                ptx = kernel.asm['ptx']
                row = dict(
                    kernel=name,
                    architecture=architecture,
                    call=kind,
                    shared=kernel.metadata.shared,
                    threads=32 * kernel.metadata.num_warps,
                    approximate_log='lg2.approx' in ptx,
                    **resources(ptx, architecture),
                )
                sys.stdout.write(json.dumps(row) + '\n')


if __name__ == '__main__':
    main()
