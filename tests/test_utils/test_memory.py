import os
import platform
import subprocess
import sys

import pytest

from mmseg_crackssm.apis import errors
from mmseg_crackssm.utils import memory

needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='glibc alone is told to keep'
)
SCRIPT = """
import resource
import torch
from mmseg_crackssm.utils.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    torch.ones(16 * 2**20)

kept = keep_freed_memory()
use()
before = faults()
for _ in range(5):
    use()
print(kept, faults() - before)
"""


def run(**environment):
    """Whether memory is kept, and the page faults of 5 times 64 MiB."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != memory.KEEP_VARIABLE
    }
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', SCRIPT],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, faults = result.stdout.splitlines()[-1].split()
    return kept == 'True', int(faults)


@needs_glibc
def test_freed_memory_is_used_again():
    kept, faults = run()
    assert kept
    # 5 x 16384 pages if every block were new; one may be, where something
    # small has settled in the first one.
    assert faults < 2.5 * 16384


@needs_glibc
@pytest.mark.parametrize(
    'setting',
    [dict(MMSEG_CRACKSSM_KEEP_MEMORY='0'), dict(MALLOC_TRIM_THRESHOLD_='0')],
    ids=str,
)
def test_settings_of_the_user_go_first(setting):
    kept, _ = run(**setting)
    assert not kept


def test_without_glibc(monkeypatch):
    class Library:
        pass

    monkeypatch.delenv(memory.KEEP_VARIABLE, raising=False)
    monkeypatch.setattr(memory.ctypes, 'CDLL', lambda _: Library())
    assert memory.keep_freed_memory() is False


def test_releases_with_a_limit(monkeypatch):
    asked = []

    def mallopt(option, value):
        asked.append((option, value))
        return int(value <= 2**25 or option == -1)

    class Library:
        pass

    Library.mallopt = staticmethod(mallopt)
    monkeypatch.delenv(memory.KEEP_VARIABLE, raising=False)
    monkeypatch.setattr(memory.ctypes, 'CDLL', lambda _: Library)
    assert memory.keep_freed_memory() is True
    assert asked == [(-3, 2**31 - 1), (-3, 2**25), (-1, 2**31 - 1)]


def test_commands_keep_memory(monkeypatch):
    calls = []
    monkeypatch.setattr(errors, 'keep_freed_memory', lambda: calls.append(1))
    assert errors.run_cli(lambda: None) == 0
    assert calls == [1]
