"""The C kernel as a library: found, fitting, forced, sound."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
from native_scan import REASON, draw, needs_kernel, struct_format

from checks import c_compiler
from mmseg_crackssm.ops.native import library
from mmseg_crackssm.ops.selective_scan import native as backend


def test_kernel_is_there_where_it_can_be_compiled():
    # The installation goes on without it: the tests must not.
    if c_compiler() is None:
        pytest.skip('no C compiler')
    assert REASON is None, REASON


RUNTIMES_SCRIPT = """
import re
import torch
from mmseg_crackssm.ops.native import library
from mmseg_crackssm.ops.selective_scan import native

def runtimes():
    maps = open('/proc/self/maps').read()
    return set(re.findall(r'/\\S*lib(?:g|i)?omp\\S*', maps))

torch.set_num_threads(2)
torch.ones(1 << 20).add_(1)
before = runtimes()
x = torch.rand(1, 64, 40)
B = torch.rand(1, 1, 2, 40)
native.forward(x, x, -torch.rand(64, 2), B, B, None, None, True, False)
print(before == runtimes(), library._library().native_has_threads())
"""


@needs_kernel
@pytest.mark.skipif(
    not Path('/proc/self/maps').exists(), reason='no /proc/self/maps here'
)
def test_no_second_openmp_runtime(repo_root):
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', RUNTIMES_SCRIPT],
        env={**os.environ, 'PYTHONPATH': str(repo_root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == 'True 1'


@needs_kernel
def test_forced_instruction_set(monkeypatch, best_instruction_set):
    library.set_instruction_set('baseline')
    assert library.instruction_set() == 'baseline'
    with pytest.raises(ValueError, match="expected one of .* got 'mmx'"):
        library.set_instruction_set('mmx')

    library._load.cache_clear()
    monkeypatch.setenv(library.ISA_VARIABLE, 'baseline')
    assert library.instruction_set() == 'baseline'
    library._load.cache_clear()
    monkeypatch.delenv(library.ISA_VARIABLE)
    best = library.instruction_set()
    missing = library.INSTRUCTION_SETS[
        library.INSTRUCTION_SETS.index(best) + 1 :
    ]
    for name in missing:
        with pytest.raises(ValueError, match='this processor has none above'):
            library.set_instruction_set(name)


@pytest.fixture
def reloaded():
    """Forget the library before and after a test."""
    library._load.cache_clear()
    library._log_once.cache_clear()
    yield
    library._load.cache_clear()
    library._log_once.cache_clear()


def test_missing_library_is_said_once(monkeypatch, reloaded):
    lines = []
    monkeypatch.setattr(library, 'LIBRARY_NAME', 'absent.so')
    monkeypatch.setattr(
        library, 'print_log', lambda line, **_: lines.append(line)
    )
    assert not library.is_available()
    for _ in range(2):
        reason = library.unavailable_reason()
    assert 'not built' in reason and 'gcc' in reason
    assert len(lines) == 1 and reason in lines[0]
    with pytest.raises(RuntimeError, match='not built'):
        library.instruction_set()


@needs_kernel
def test_library_of_another_version(monkeypatch, reloaded):
    monkeypatch.setattr(library, '_INTERFACE_VERSION', -1)
    monkeypatch.setattr(library, 'print_log', lambda *_, **__: None)
    assert 'another version' in library.unavailable_reason()


def test_library_that_does_not_load(monkeypatch, reloaded):
    # A file that is there and is no library.
    monkeypatch.setattr(library, 'LIBRARY_NAME', 'library.py')
    monkeypatch.setattr(library, 'print_log', lambda *_, **__: None)
    assert 'does not load' in library.unavailable_reason()


@needs_kernel
def test_failure_in_the_kernel_is_an_error():
    inputs = draw()
    inputs['B'] = inputs['B'].repeat(1, 3, 1, 1)
    with pytest.raises(RuntimeError, match='sizes out of range'):
        backend.forward(*inputs.values(), True, False)


@needs_kernel
def test_the_call_is_packed_as_the_header_says(repo_root):
    assert backend._CALL.format == struct_format(repo_root, 'scan_call')
    assert ctypes.sizeof(ctypes.c_void_p) == 8


@pytest.mark.slow
def test_under_sanitizers(repo_root):
    result = subprocess.run(
        ['bash', str(repo_root / '.ci' / 'sanitize'), '20'],
        capture_output=True,
        text=True,
    )
    if result.returncode == 77:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr[-3000:]
    totals = {line.split()[1] for line in result.stdout.splitlines()}
    assert len(totals) == 1, result.stdout
