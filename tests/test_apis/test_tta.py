import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tiny_run import make_images, tiny_config, tiny_model

from mmseg_crackssm import apis
from mmseg_crackssm.apis.errors import UsageError
from mmseg_crackssm.apis.inference import read_image
from mmseg_crackssm.apis.tta import CrackTTAModel, switch_on_tta


def _sample(maps, name):
    sample = SegDataSample(metainfo=dict(img_path=name))
    sample.seg_logits = PixelData(data=maps)
    return sample


@pytest.mark.parametrize('channels', [1, 2])
def test_probabilities_are_averaged(channels):
    init_default_scope('mmseg')
    module = MODELS.build(tiny_model(out_channels=channels))
    model = CrackTTAModel(module)
    probabilities = torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.9, 0.2]])
    samples = []
    for i, row in enumerate(probabilities):
        maps = row[None, None]
        if channels == 2:
            maps = maps.logit() * torch.tensor([-0.5, 0.5]).view(2, 1, 1)
        samples.append(_sample(maps, f'{i}.png'))
    (merged,) = model.merge_preds([samples])
    assert merged.img_path == '0.png'
    scores = merged.seg_logits.data
    if channels == 2:
        scores = scores.softmax(dim=0)[1:]
    torch.testing.assert_close(scores, probabilities.mean(0)[None, None])
    assert merged.pred_sem_seg.data.tolist() == [[[1, 1, 0]]]


def test_tta_scores_and_writes_the_mean(tmp_path):
    make_images(tmp_path, count=2)
    cfg = tiny_config(tmp_path)
    # As in mmseg's own base configs.
    cfg.tta_model = dict(type='SegTTAModel')
    torch.manual_seed(1)
    model = apis.init_model(cfg, device='cpu')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    scores = apis.test_model(
        cfg,
        tmp_path / 'a.pth',
        tta=True,
        out=str(tmp_path / 'out'),
        show_dir=str(tmp_path / 'show'),
    )
    assert 0 <= scores['crack/F1'] <= 1
    for i in range(2):
        image = read_image(tmp_path / f'img/{i}.png')
        views = []
        for axes in ((), 1, 0):
            turned = np.ascontiguousarray(np.flip(image, axes))
            found = apis.predict_image(model, turned)['probability']
            views.append(np.flip(found, axes))
        written = cv2.imread(str(tmp_path / f'out/probability/{i}.png'), -1)
        np.testing.assert_allclose(
            written / 65535, np.mean(views, axis=0), atol=1e-5
        )
        assert not np.allclose(views[0], views[1], atol=1e-3)
        mask = cv2.imread(str(tmp_path / f'out/mask/{i}.png'), -1)
        assert np.array_equal(mask > 0, np.mean(views, axis=0) > 0.5)
        assert (tmp_path / f'show/{i}.png').is_file()


def test_own_pipelines(tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.tta_pipeline = [dict(type='Own')]
    switch_on_tta(cfg)
    assert cfg.test_dataloader.dataset.pipeline == [dict(type='Own')]
    assert cfg.model.type == 'CrackTTAModel'
    assert cfg.model.module.type == 'EncoderDecoder'
    cfg = tiny_config(tmp_path)
    cfg.test_dataloader.dataset.pipeline.pop()
    with pytest.raises(UsageError, match='tta_pipeline'):
        switch_on_tta(cfg)
