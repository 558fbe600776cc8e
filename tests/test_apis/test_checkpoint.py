import os
import pickle

import pytest
import torch
from torch import nn

from mmseg_crackssm.apis.checkpoint import (
    check_fits,
    is_url,
    load_weights,
    restricted_unpickling,
)
from mmseg_crackssm.apis.errors import UsageError


class Payload:
    """Unpickling this creates a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_are_read(tmp_path):
    torch.save(dict(state_dict=dict(w=torch.ones(2))), tmp_path / 'a.pth')
    loaded = load_weights(tmp_path / 'a.pth')
    assert torch.equal(loaded['state_dict']['w'], torch.ones(2))


def test_code_is_refused_unless_asked_for(tmp_path):
    ran = tmp_path / 'ran'
    path = tmp_path / 'evil.pth'
    torch.save(dict(state_dict={}, extra=Payload(ran)), path)
    with pytest.raises(UsageError, match='mkdir.*--unsafe-load'):
        load_weights(path)
    assert not ran.exists()
    load_weights(path, unsafe=True)
    assert ran.exists()


def test_mmengine_cannot_be_tricked_either(tmp_path):
    """OneDL's loader would fall back to unrestricted unpickling."""
    from mmengine.runner import load_checkpoint

    ran = tmp_path / 'ran'
    path = str(tmp_path / 'evil.pth')
    torch.save(dict(state_dict={}, extra=Payload(ran)), path)
    with restricted_unpickling(), pytest.raises(pickle.UnpicklingError):
        load_checkpoint(nn.Linear(1, 1), path)
    assert not ran.exists()
    with restricted_unpickling(unsafe=True):
        load_checkpoint(nn.Linear(1, 1), path)
    assert ran.exists()


def test_environment_is_restored(monkeypatch):
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    before = dict(os.environ)
    with restricted_unpickling():
        assert 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ
        assert os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] == '1'
    assert dict(os.environ) == before


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'PK\x03\x04'])
def test_other_files_are_named_as_such(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(UsageError, match='is not a checkpoint'):
        load_weights(path)


def test_truncated_checkpoint_is_named_as_such(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.ones(1000)), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match='damaged'):
        load_weights(path)


def test_missing_file_and_wrong_content(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load_weights(tmp_path / 'none.pth')
    torch.save([1], tmp_path / 'list.pth')
    with pytest.raises(UsageError, match='holds a list'):
        load_weights(tmp_path / 'list.pth')


def test_checkpoint_must_fill_the_model():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weights = {f'module.{k}': v for k, v in model.state_dict().items()}
    check_fits(model, dict(state_dict=weights), 'a.pth')
    check_fits(model, dict(weights, more=torch.ones(1)), 'a.pth')
    foreign = nn.Sequential(nn.Linear(2, 4)).state_dict()
    checkpoint = dict(state_dict=foreign, meta=dict(experiment_name='other'))
    with pytest.raises(UsageError) as error:
        check_fits(model, checkpoint, 'a.pth')
    text = str(error.value)
    assert '7 of 7' in text and "'other'" in text
    assert '0.weight (3, 2) (the checkpoint has (4, 2))' in text
    assert len(text) < 500


def test_urls():
    assert is_url('https://example.org/a.pth')
    assert is_url('torchvision://resnet18')
    assert not is_url('work_dirs/a.pth')
