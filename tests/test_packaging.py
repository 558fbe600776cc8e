"""What pip sees: requirements, pins, contents of wheel and sdist."""

import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mmseg_crackssm
from checks import c_compiler
from mmseg_crackssm.utils import STACKS

STACK_DISTRIBUTIONS = {
    name
    for distributions in STACKS.values()
    for name in distributions.values()
}
# What is copied to build from. Beside it a checkout may hold anything.
SOURCES = (
    '.ci',
    '.pre-commit-config.yaml',
    'CHANGELOG.md',
    'CITATION.cff',
    'CONTRIBUTING.md',
    'LICENSE',
    'MANIFEST.in',
    'Makefile',
    'README.md',
    'configs',
    'mmseg_crackssm',
    'pyproject.toml',
    'requirements',
    'setup.cfg',
    'setup.py',
    'tests',
    'tools',
)


@pytest.fixture(scope='module')
def setup_cfg(repo_root):
    parser = configparser.ConfigParser()
    parser.read(repo_root / 'setup.cfg')
    return parser


@pytest.fixture(scope='module')
def source_copy(repo_root, tmp_path_factory):
    """A copy of the checkout: a build writes beside the sources."""
    pytest.importorskip('build', reason='needs the extra "dev" (build)')
    copy = tmp_path_factory.mktemp('packaging') / 'source'
    copy.mkdir()
    unwanted = shutil.ignore_patterns('__pycache__', '*.so')
    for name in SOURCES:
        source = repo_root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=unwanted)
        else:
            shutil.copy(source, copy / name)
    return copy


@pytest.fixture(scope='module')
def sdist(source_copy):
    """Path of the sdist."""
    build('--sdist', cwd=source_copy)
    (path,) = (source_copy / 'dist').iterdir()
    return path


@pytest.fixture(scope='module')
def unpacked(sdist):
    """The folder of the unpacked sdist, where the wheel has been built."""
    shutil.unpack_archive(sdist, sdist.parent)
    (folder,) = (path for path in sdist.parent.iterdir() if path.is_dir())
    build('--wheel', cwd=folder)
    return folder


@pytest.fixture(scope='module')
def wheel(unpacked):
    """Path of the wheel built from the sdist."""
    (path,) = (unpacked / 'dist').iterdir()
    return path


def build(what, cwd):
    result = subprocess.run(
        [sys.executable, '-m', 'build', '--no-isolation', what],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def requirements(text):
    return [Requirement(line) for line in text.split('\n') if line.strip()]


def read_pins(path):
    """Distribution -> version for this Python, nested files included."""
    pins = {}
    for line in path.read_text().splitlines():
        if line.startswith('-c '):
            pins.update(read_pins(path.parent / line.removeprefix('-c ')))
        elif line and not line.startswith('#'):
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate():
                continue
            (specifier,) = requirement.specifier
            assert specifier.operator == '==', line
            name = canonicalize_name(requirement.name)
            assert name not in pins, f'{line}: pinned twice'
            pins[name] = Version(specifier.version)
    return pins


def files_below(root, *folders):
    """Paths of all files in some folders (default: all) of a root."""
    return {
        path.relative_to(root).as_posix()
        for folder in folders or ['.']
        for path in (root / folder).rglob('*')
        if path.is_file()
    }


def test_stack_is_no_run_time_requirement(setup_cfg):
    names = {
        canonicalize_name(requirement.name)
        for requirement in requirements(
            setup_cfg['options']['install_requires']
        )
    }
    assert 'torch' in names
    assert not names & STACK_DISTRIBUTIONS
    assert not names & {'pytest', 'hypothesis', 'ruff'}


@pytest.mark.parametrize('extra', STACKS)
def test_extra_brings_one_whole_stack(setup_cfg, extra):
    names = {
        canonicalize_name(requirement.name)
        for requirement in requirements(
            setup_cfg['options.extras_require'][extra]
        )
    }
    assert names & STACK_DISTRIBUTIONS == set(STACKS[extra].values())


@pytest.mark.parametrize(
    ('extra', 'file'),
    [
        ('onedl', 'constraints.txt'),
        ('openmmlab', 'constraints-openmmlab.txt'),
    ],
)
def test_pins_meet_the_requirements(setup_cfg, repo_root, extra, file):
    pins = read_pins(repo_root / 'requirements' / file)
    extras = setup_cfg['options.extras_require']
    wanted = requirements(
        '\n'.join(
            [
                setup_cfg['options']['install_requires'],
                extras[extra],
                extras['dev'],
            ]
        )
    )
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in pins, f'{file} pins no {name}'
        assert pins[name] in requirement.specifier


def test_mmcv_can_be_compiled_with_the_pins(repo_root):
    pins = read_pins(repo_root / 'requirements' / 'constraints-openmmlab.txt')
    # setuptools 81 dropped pkg_resources.
    assert pins['setuptools'] < Version('81')
    assert pins['torch'] == Version('2.13.0')


def test_hooks_run_the_pinned_ruff(repo_root):
    hooks = (repo_root / '.pre-commit-config.yaml').read_text()
    pins = read_pins(repo_root / 'requirements' / 'constraints.txt')
    versions = re.findall(r'ruff==([\d.]+)', hooks)
    assert versions
    assert {Version(version) for version in versions} == {pins['ruff']}


def test_version_stands_in_the_citation(repo_root):
    citation = (repo_root / 'CITATION.cff').read_text()
    assert f'\nversion: {mmseg_crackssm.__version__}\n' in citation


@pytest.mark.slow
def test_wheel_is_complete(wheel, source_copy):
    expected = files_below(source_copy, 'mmseg_crackssm')
    expected = {name for name in expected if name.endswith('.py')}
    for name in files_below(source_copy, 'configs', 'tools'):
        expected.add(f'mmseg_crackssm/.mim/{name}')
    if c_compiler() is not None:
        expected.add('mmseg_crackssm/ops/native/_native.so')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert 'mmseg_crackssm/.mim/tools/train.py' in expected
    assert not expected - names
    outside = {
        name
        for name in names
        if not name.startswith(('mmseg_crackssm/', 'mmseg_crackssm-'))
    }
    assert not outside


TRAIN = """
import runpy
import mmseg_crackssm
print('imported', mmseg_crackssm.__file__)
runpy.run_module('mmseg_crackssm.apis.train', run_name='__main__')
"""


@pytest.mark.slow
def test_installed_wheel_trains(wheel, tmp_path):
    """Outside the checkout, with nothing but what the wheel holds."""
    site, run = tmp_path / 'site', tmp_path / 'run'
    run.mkdir()
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--no-index']
    subprocess.run(
        [*pip, '--no-deps', '--target', str(site), str(wheel)],
        check=True,
        capture_output=True,
    )
    options = {
        'train_dataloader.dataset.size': 64,
        'train_dataloader.batch_size': 2,
        'val_dataloader.dataset.size': 64,
        'val_dataloader.dataset.num_samples': 2,
        'default_hooks.time_budget.seconds': 2,
    }
    for loader in ('train_dataloader', 'val_dataloader'):
        options[f'{loader}.num_workers'] = 0
        options[f'{loader}.persistent_workers'] = False
    done = subprocess.run(
        [
            *(sys.executable, '-c', TRAIN),
            *('crackssm/crackssm_synthetic-256.py', '--work-dir', 'out'),
            *('--cfg-options', *(f'{k}={v}' for k, v in options.items())),
        ],
        cwd=run,
        env={**os.environ, 'PYTHONPATH': str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f'imported {site}' in done.stdout
    assert (run / 'out' / 'last_checkpoint').is_file()
    assert 'crack/F1' in done.stdout + done.stderr


@pytest.mark.slow
def test_wheel_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
        message = email.message_from_bytes(archive.read(path))
    assert message['Version'] == mmseg_crackssm.__version__
    hard = {
        canonicalize_name(requirement.name)
        for requirement in map(Requirement, message.get_all('Requires-Dist'))
        if requirement.marker is None
    }
    assert not hard & STACK_DISTRIBUTIONS


@pytest.mark.slow
def test_sdist_is_complete(sdist, source_copy):
    expected = {
        name
        for name in files_below(source_copy)
        if not name.startswith(('dist/', 'mmseg_crackssm.egg-info/'))
    }
    with tarfile.open(sdist) as archive:
        names = {
            Path(name).relative_to(Path(name).parts[0]).as_posix()
            for name in archive.getnames()
        }
    assert 'setup.cfg' in expected
    assert not expected - names


@pytest.mark.slow
def test_build_leaves_the_package_folder_alone(wheel, unpacked):
    files = files_below(unpacked, 'mmseg_crackssm')
    assert not {name for name in files if '.mim' in name}


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
def test_make_refuses_an_old_python(repo_root, tmp_path):
    old = tmp_path / 'python3.9'
    old.write_text(
        '#!/bin/sh\n'
        '[ "$1" = -c ] || { echo Python 3.9.1; exit; }\n'
        f'exec {sys.executable} -c '
        "'import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])' "
        '"$2"\n'
    )
    old.chmod(0o755)
    result = subprocess.run(
        ['make', 'venv', f'PYTHON={old}', f'VENV={tmp_path / "venv"}'],
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert 'is not Python 3.10 or newer (found: Python 3.9.1)' in result.stderr
    assert not (tmp_path / 'venv').exists()


@pytest.mark.skipif(shutil.which('make') is None, reason='needs make')
def test_make_clean_leaves_no_compiled_kernel(repo_root, tmp_path):
    shutil.copy(repo_root / 'Makefile', tmp_path)
    kernel = tmp_path / 'mmseg_crackssm/ops/native/_native.so'
    kernel.parent.mkdir(parents=True)
    kernel.touch()
    subprocess.run(
        ['make', 'clean'], cwd=tmp_path, capture_output=True, check=True
    )
    assert not kernel.exists()


@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_ci_refuses_what_is_not_committed(repo_root, tmp_path):
    subprocess.run(['git', 'init', '-q'], cwd=tmp_path, check=True)
    (tmp_path / '.ci').mkdir()
    shutil.copy(repo_root / '.ci' / 'run', tmp_path / '.ci')
    (tmp_path / 'forgotten.py').touch()
    env = {k: v for k, v in os.environ.items() if k != 'CI'}
    result = subprocess.run(
        [str(tmp_path / '.ci' / 'run')],
        env=env,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert 'A clean checkout' in result.stderr
    assert 'forgotten.py' in result.stderr
    assert 'make lint' not in result.stdout
