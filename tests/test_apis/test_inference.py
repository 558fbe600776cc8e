import copy

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmseg.apis import inference_model
from tiny_run import tiny_config, tiny_model

from mmseg_crackssm.apis import init_model, predict_image, predict_images
from mmseg_crackssm.apis.errors import UsageError
from mmseg_crackssm.apis.inference import read_image


@pytest.fixture(scope='module')
def cfg(tmp_path_factory) -> Config:
    return tiny_config(tmp_path_factory.mktemp('inference'))


@pytest.fixture(scope='module')
def model(cfg):
    torch.manual_seed(0)
    return init_model(cfg, device='cpu')


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (37, 29, 3), dtype=np.uint8)


@pytest.mark.parametrize('padding', [None, dict(size_divisor=32)])
def test_prediction_equals_mmsegs_own(model, image, padding, monkeypatch):
    """Same figures as the path that testing takes."""
    monkeypatch.setattr(model.data_preprocessor, 'test_cfg', padding)
    model.cfg.test_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='PackSegInputs'),
    ]
    reference = inference_model(model, image)
    found = predict_image(model, image)
    assert found['mask'].dtype == bool
    assert found['mask'].shape == found['probability'].shape == (37, 29)
    assert found['probability'].dtype == np.float32
    np.testing.assert_allclose(
        found['probability'], reference.seg_logits.data[0], atol=1e-6
    )
    assert np.array_equal(
        found['mask'], reference.pred_sem_seg.data[0].numpy() > 0
    )


def test_threshold(model, image):
    probability = predict_image(model, image)['probability']
    threshold = float(np.median(probability))
    found = predict_image(model, image, threshold=threshold)
    assert np.array_equal(found['mask'], probability > threshold)
    assert 0 < found['mask'].sum() < found['mask'].size
    assert predict_image(model, image, threshold=0.0)['mask'].all()


def test_batch_equals_single(model, image):
    images = [image, np.ascontiguousarray(image[::-1])]
    batch = predict_images(model, images)
    for one, found in zip(images, batch, strict=True):
        np.testing.assert_allclose(
            predict_image(model, one)['probability'],
            found['probability'],
            atol=1e-6,
        )
    with pytest.raises(ValueError, match='one shape'):
        predict_images(model, [image, image[:5]])
    with pytest.raises(ValueError, match='one shape'):
        predict_images(model, [image[..., 0]])


def test_tiles_agree_away_from_their_borders(model):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (160, 152, 3), dtype=np.uint8)
    whole = predict_image(model, image)['probability']
    tiled = predict_image(model, image, tile=112)['probability']
    assert tiled.shape == whole.shape
    # The network sees 30 pixels around each one; this corner lies in the
    # first tile alone (the second starts at 40 or 48).
    corner = np.s_[:16, :16]
    np.testing.assert_allclose(tiled[corner], whole[corner], atol=1e-5)
    assert not np.allclose(tiled, whole, atol=1e-5)
    assert model.test_cfg.mode == 'whole'
    with pytest.raises(ValueError, match='tile'):
        predict_image(model, image, tile=0)


@pytest.mark.parametrize('shape', [(1, 1), (5, 64), (33, 7)])
def test_any_size(model, shape):
    image = np.zeros((*shape, 3), np.uint8)
    for tile in (None, 16):
        assert predict_image(model, image, tile=tile)['mask'].shape == shape


def test_diverged_weights_are_told(model, image):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in broken.decode_head.parameters():
            parameter.fill_(float('nan'))
    with pytest.raises(ValueError, match='training has diverged'):
        predict_image(broken, image)


def test_resize_of_the_pipeline_is_undone(cfg, model, image):
    resized = copy.deepcopy(cfg)
    pipeline = list(cfg.test_dataloader.dataset.pipeline)
    pipeline.insert(1, dict(type='Resize', scale=(64, 48), keep_ratio=False))
    resized.test_dataloader.dataset.pipeline = pipeline
    model.cfg = resized
    found = predict_image(model, image)
    tiled = predict_image(model, image, tile=64)
    model.cfg = cfg
    assert found['mask'].shape == (37, 29)
    plain = predict_image(model, image)['probability']
    assert not np.allclose(found['probability'], plain, atol=1e-4)
    # Tiles are cut at the image's own size.
    np.testing.assert_allclose(tiled['probability'], plain, atol=1e-6)


def test_two_channels_and_more(cfg, image):
    for channels in (2, 3):
        other = copy.deepcopy(cfg)
        other.model = ConfigDict(tiny_model(out_channels=2))
        if channels == 3:
            other.model.decode_head.update(num_classes=3, out_channels=3)
        model = init_model(other, device='cpu')
        if channels == 3:
            with pytest.raises(UsageError, match='3 classes'):
                predict_image(model, image)
            continue
        found = predict_image(model, image)
        assert np.array_equal(found['mask'], found['probability'] > 0.5)
        assert 0 < found['probability'].min()
        assert found['probability'].max() < 1


def test_checkpoint_is_loaded_and_checked(cfg, model, image, tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    torch.manual_seed(9)
    again = init_model(cfg, path, device='cpu')
    assert np.array_equal(
        predict_image(again, image)['probability'],
        predict_image(model, image)['probability'],
    )
    torch.save(dict(state_dict=dict(w=torch.ones(1))), path)
    with pytest.raises(UsageError, match='does not fit'):
        init_model(cfg, path, device='cpu')


def test_files_of_any_name_and_kind(model, tmp_path, image):
    path = tmp_path / 'Riß 裂缝.png'
    path.write_bytes(cv2.imencode('.png', image)[1].tobytes())
    assert np.array_equal(read_image(path), image)
    assert np.array_equal(
        predict_image(model, str(path))['mask'],
        predict_image(model, image)['mask'],
    )
    grey = cv2.imencode('.png', image[..., 0].astype(np.uint16) * 257)[1]
    path.write_bytes(grey.tobytes())
    assert np.array_equal(
        read_image(path), np.repeat(image[..., :1], 3, axis=2)
    )


@pytest.mark.parametrize('content', [b'', b'text', b'\x89PNG\r\n\x1a\n1234'])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='a.png'):
        read_image(path)
    with pytest.raises(OSError):
        read_image(tmp_path / 'none.png')


def test_config_without_test_pipeline_is_refused(model, cfg, image):
    model.cfg = Config(dict(model=cfg.model))
    try:
        with pytest.raises(UsageError, match='no test pipeline'):
            predict_image(model, image)
    finally:
        model.cfg = cfg
