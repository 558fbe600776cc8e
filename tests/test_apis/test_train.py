from types import SimpleNamespace

import pytest
import torch
from tiny_run import make_images, tiny_config

from mmseg_crackssm.apis import train, train_model


@pytest.fixture
def started(monkeypatch):
    """Configs that a Runner was built from, and none was run."""
    configs = []

    def from_cfg(cfg):
        configs.append(cfg)
        return SimpleNamespace(train=lambda: None)

    monkeypatch.setattr(train, 'Runner', SimpleNamespace(from_cfg=from_cfg))
    return configs


def test_resumed_fine_tuning_goes_on_from_its_own_checkpoint(
    tmp_path, started
):
    make_images(tmp_path)
    own, origin = tmp_path / 'work/iter_3.pth', str(tmp_path / 'origin.pth')
    own.parent.mkdir()
    for path in (own, origin):
        torch.save(dict(state_dict={}), path)
    cfg = tiny_config(tmp_path)
    cfg.load_from = origin
    train_model(cfg, resume=True)
    (own.parent / 'last_checkpoint').write_text(str(own))
    train_model(cfg)
    train_model(cfg, resume=True)
    train_model(cfg, resume=True, cfg_options=dict(load_from=origin))
    # None: mmengine takes the latest checkpoint of the work dir.
    assert [(c.resume, c.load_from) for c in started] == [
        (True, origin),
        (False, origin),
        (True, None),
        (True, origin),
    ]
