"""The study of CrackMamba's blocks: its configs and its table."""

import json

import pytest
from mmengine.config import Config
from tiny_run import SMALL_SYNTHETIC

from checks import load_script
from mmseg_crackssm.analysis.train_seeds import FINISHED

DATASETS = ('deepcrack', 'steelcrack', 'cfd', 'synthetic')
BLOCKS = {
    'conv': 'conv',
    'vim': 'VimBlock',
    'vanilla-vss': 'VanillaVSSBlock',
    'vss': 'VSSBlock',
    'crackmamba': 'CrackMambaBlock',
}


@pytest.fixture(scope='module')
def project(repo_root):
    return repo_root / 'projects' / 'crackmamba_study'


@pytest.fixture(scope='module')
def study(project):
    return load_script(project / 'run.py')


@pytest.mark.parametrize('dataset', DATASETS)
def test_rows_differ_in_the_block_alone(project, dataset):
    configs = {
        block: Config.fromfile(project / 'configs' / f'{block}_{dataset}.py')
        for block in BLOCKS
    }
    for block, name in BLOCKS.items():
        cfg = configs[block].to_dict()
        assert cfg['model']['backbone'].pop('blocks') == name
        first = configs['conv'].to_dict()
        first['model']['backbone'].pop('blocks')
        assert cfg == first
    metric = configs['conv'].val_evaluator[0]
    assert 'image' in metric.protocols
    leaves = {path.stem for path in (project / 'configs').glob('*.py')}
    assert leaves == {f'{b}_{d}' for b in BLOCKS for d in DATASETS}


def test_recipes_are_the_papers(project):
    """Section 4.2: Adam, 80 epochs of 1800 and 70 of 3300 images."""
    for dataset, lr, batch, iterations in (
        ('deepcrack', 9e-4, 12, 80 * 1800 // 12),
        ('steelcrack', 6e-3, 9, 70 * 3300 // 9),
    ):
        cfg = Config.fromfile(project / 'configs' / f'conv_{dataset}.py')
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr) == ('Adam', lr)
        assert cfg.train_dataloader.batch_size == batch
        assert cfg.train_cfg.max_iters == pytest.approx(iterations, rel=0.01)


def finish(run, mi_iou, mi_dice=0.5):
    """Leave the scores that a training leaves."""
    folder = run.work_dir / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    scores = {'crack/miIoU': mi_iou, 'crack/miDice': mi_dice, 'crack/F1': 0.6}
    (folder / 'scalars.json').write_text(json.dumps({**scores, 'step': 300}))
    (run.work_dir / FINISHED).write_text('{"options": []}')


def test_table_has_the_papers_columns_and_blanks(study, tmp_path, capsys):
    for seed, score in enumerate((0.70, 0.72, 0.74)):
        finish(study.run_of(tmp_path, 'vss', 'deepcrack', seed), score)
    finish(study.run_of(tmp_path, 'conv', 'deepcrack', 0), 0.65)
    arguments = ['--dataset', 'deepcrack', '--table', '--out', str(tmp_path)]
    arguments += ['--blocks', 'conv', 'vss', 'crackmamba']
    assert study.main([*arguments, '--seeds', '0', '1', '2']) == 0
    rows = {
        cells[1]: cells[2:-1]
        for line in capsys.readouterr().out.splitlines()
        if (cells := [x.strip() for x in line.split('|')])[0] == ''
        and len(cells) > 3
    }
    assert rows['vss'] == [
        '3',
        '72.00 ± 2.00',
        '50.00 ± 0.00',
        '60.00 ± 0.00',
        '2,353,906',
        '8.26 G',
        '72.46',
        '82.26',
        '8.26 G',
    ]
    assert rows['conv'][:2] == ['1', '65.00']
    # Not run here: the paper's figures alone.
    assert rows['crackmamba'] == [
        '',
        '',
        '',
        '',
        '1,829,266',
        '7.94 G',
        '73.12',
        '82.50',
        '7.94 G',
    ]
    report = json.loads((tmp_path / 'deepcrack.json').read_text())
    assert report['vss']['percent']['miIoU'] == [70, 72, 74]
    assert (tmp_path / 'deepcrack.md').read_text().startswith('| ')


def test_data_sets_without_paper(study, tmp_path):
    text, _ = study.tabulate('cfd', tmp_path, ['conv'], [0])
    printed = text.splitlines()[-1].split('|')[-4:-1]
    assert [cell.strip() for cell in printed] == ['', '', '']


SMALL = [
    'train_cfg.max_iters=1',
    'train_cfg.val_interval=1',
    *SMALL_SYNTHETIC,
]


def test_trains_once_and_resumes(study, tmp_path, capfd):
    arguments = ['--dataset', 'synthetic', '--blocks', 'crackmamba']
    arguments += ['--out', str(tmp_path), '--cfg-options', *SMALL]
    assert study.main(arguments) == 0
    captured = capfd.readouterr()
    assert 'run 1 of 1: crackmamba_synthetic_seed0' in captured.err
    run = study.run_of(tmp_path, 'crackmamba', 'synthetic', 0)
    assert run.scores()['miIoU'] >= 0
    assert '| crackmamba' in captured.out
    assert study.main(arguments) == 0
    assert 'run 1' not in capfd.readouterr().err


def test_failed_training(study, tmp_path, capfd):
    arguments = ['--dataset', 'cfd', '--blocks', 'vim', '--out', str(tmp_path)]
    arguments += ['--cfg-options', f'data_root={tmp_path / "nowhere"}']
    assert study.main(arguments) == 1
    assert 'training vim_cfd_seed0 failed' in capfd.readouterr().err


def test_unknown_block_lists_the_valid_ones(study, capsys):
    with pytest.raises(SystemExit):
        study.main(['--blocks', 'crackmanba'])
    assert 'vanilla-vss' in capsys.readouterr().err
