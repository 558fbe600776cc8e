import numpy as np
import pytest

from checks import load_script


@pytest.fixture
def demo(repo_root, tmp_path, monkeypatch):
    """The command, with everything that takes time left out."""
    module = load_script(repo_root / 'tools' / 'demo.py')

    def train_model(config, work_dir, cfg_options):
        (tmp_path / 'last_checkpoint').write_text('iter_1.pth')

    monkeypatch.setattr(module, 'train_model', train_model)
    monkeypatch.setattr(module, 'init_model', lambda *args: None)
    monkeypatch.setattr(
        module, 'contact_sheet', lambda *a, **k: np.zeros((4, 4, 3), np.uint8)
    )
    return module


@pytest.mark.parametrize(
    ('f1', 'seconds', 'code'),
    [
        (0.81, None, 0),
        (0.79, None, 1),
        (float('nan'), None, 1),
        (0.1, 5.0, 0),
    ],
)
def test_a_full_run_must_reach_its_score(
    f1, seconds, code, demo, tmp_path, monkeypatch, capsys
):
    scores = {f'crack/{x}': f1 for x in ('F1', 'P', 'R', 'mIoU', 'ODS', 'OIS')}
    monkeypatch.setattr(demo, 'test_model', lambda *a, **k: scores)
    assert demo.run_demo(tmp_path, seconds) == code
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert ('below the expected 0.8' in last) == bool(code)
    assert str(tmp_path / 'predictions.png') in last or code
