"""What setup.cfg cannot say: C kernel, configs and tools in the wheel."""

import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmseg_crackssm'
MIM_FOLDERS = ('configs', 'tools')


class BuildPyWithMim(build_py):
    """Copy ``configs/`` and ``tools/`` to ``<package>/.mim/`` in the wheel.

    OpenMMLab's packages keep them there, so that
    ``_base_ = 'mmseg_crackssm::...'`` and ``mim`` find them. The copy is
    made in the build folder only: the source tree stays as it is, and an
    editable install uses the checkout's own folders.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for name in MIM_FOLDERS:
            source = ROOT / name
            if not source.is_dir():
                raise FileNotFoundError(
                    f'{source} is missing: build from a full checkout or '
                    'from the sdist'
                )
            target = Path(self.build_lib) / PACKAGE / '.mim' / name
            # A build folder that is used again must not bring back files
            # that have been deleted since.
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(
                source,
                target,
                ignore=shutil.ignore_patterns('__pycache__', '*.py[co]'),
            )


class BuildNativeKernel(build_ext):
    """Compile the C kernel for the CPU.

    It is a plain shared library for ctypes, the same for every Python: its
    name carries no Python version.
    """

    def get_ext_filename(self, fullname):
        return f'{fullname.replace(".", "/")}.so'

    def get_export_symbols(self, ext):
        return ext.export_symbols


def native_kernel() -> Extension:
    """The kernel; without a C compiler the installation goes on without it.

    No flag names a processor: the library chooses its instruction set when it
    is loaded. ``-ffast-math`` must stay out: loading a library linked with it
    switches the whole process to flushing denormal numbers.
    """
    source = f'{PACKAGE}/ops/native/csrc'
    strip = ['-Wl,-s'] if sys.platform.startswith('linux') else []
    return Extension(
        f'{PACKAGE}.ops.native._native',
        sources=[f'{source}/native.c', f'{source}/parallel.c'],
        depends=sorted(
            str(path.relative_to(ROOT)) for path in (ROOT / source).glob('*.h')
        ),
        extra_compile_args=[
            '-O3',
            '-std=gnu11',
            '-fno-math-errno',
            '-fno-trapping-math',
            '-ffp-contract=fast',
            '-fvisibility=hidden',
            '-Wno-psabi',
        ],
        extra_link_args=['-pthread', *strip],
        libraries=['m'],
        optional=True,
    )


setup(
    cmdclass={'build_ext': BuildNativeKernel, 'build_py': BuildPyWithMim},
    ext_modules=[native_kernel()],
)
