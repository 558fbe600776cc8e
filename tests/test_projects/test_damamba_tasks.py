"""DAMamba in mmdet's Mask R-CNN and in mmpretrain's classifier."""

import importlib
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from checks import load_script
from mmseg_crackssm.analysis import count_params
from mmseg_crackssm.analysis.flops import build_model
from mmseg_crackssm.models import DAMamba

DETECTORS = {
    'mask-rcnn_damamba-t_fpn_1x_coco': ('tiny', 0.3, 45),
    'mask-rcnn_damamba-s_fpn_1x_coco': ('small', 0.4, 65),
    'mask-rcnn_damamba-b_fpn_1x_coco': ('base', 0.6, 105),
}
CLASSIFIERS = {
    'damamba-t_8xb128_in1k': ('tiny', 0.15),
    'damamba-s_8xb128_in1k': ('small', 0.4),
    'damamba-b_8xb128_in1k': ('base', 0.5),
}
SMALL = dict(channels=(16, 16, 32, 32), depths=(1, 1, 1, 1))


@pytest.fixture(scope='module')
def configs(repo_root):
    return repo_root / 'projects' / 'damamba_tasks' / 'configs'


@pytest.fixture(autouse=True)
def own_scope():
    """The default scope of each config ends with its test."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def import_or_skip(name):
    try:
        importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f'needs {name} ("make test-tasks"): {error}')


@pytest.fixture(scope='module')
def mmdet():
    """mmdet's models, which need mmcv's compiled operators."""
    import_or_skip('mmdet.models')


@pytest.fixture(scope='module')
def mmpretrain():
    """mmpretrain's models, which need torchvision."""
    import_or_skip('mmpretrain.models')


def test_every_config_is_listed(configs):
    leaves = {path.stem for path in configs.glob('*.py')}
    assert leaves == {*DETECTORS, *CLASSIFIERS}
    for path in configs.rglob('*.py'):
        assert len(path.read_text().splitlines()) <= 30, path


def load_small(path):
    """A config whose network learns in moments."""
    cfg = Config.fromfile(path)
    cfg.model.backbone.update(
        arch=SMALL, drop_path_rate=0.0, norm_cfg=dict(type='BN')
    )
    return cfg


def train_once(cfg, model, data):
    """One step of the config's optimiser, which reaches all of DAMamba."""
    assert isinstance(model.backbone, DAMamba)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    optimizer = wrapper.optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    # NoDecayOptimWrapperConstructor's: with and without decay.
    assert [x['weight_decay'] for x in optimizer.param_groups] == [0.05, 0.0]
    assert {x['lr'] for x in optimizer.param_groups} == {
        cfg.optim_wrapper.optimizer.lr
    }
    before = [x.clone() for x in model.backbone.parameters()]
    log = model.train_step(data, wrapper)
    assert log['loss'].isfinite() and log['loss'] > 0
    for old, (name, new) in zip(
        before, model.backbone.named_parameters(), strict=True
    ):
        assert torch.equal(old, new) != new.requires_grad, name
    return log


def draw_objects(height, width):
    """An image with one bright box, and what is to be found in it."""
    structures = importlib.import_module('mmdet.structures')
    image = torch.randint(0, 60, (3, height, width), dtype=torch.uint8)
    image[:, 8:40, 10:50] += 180
    mask = np.zeros((1, height, width), dtype=np.uint8)
    mask[0, 8:40, 10:50] = 1
    sample = structures.DetDataSample(
        metainfo=dict(
            img_shape=(height, width),
            ori_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 8.0, 50.0, 40.0]]),
        labels=torch.tensor([3]),
        masks=structures.mask.BitmapMasks(mask, height, width),
    )
    return image, sample


def test_mask_rcnn_learns_and_detects(mmdet, configs):
    cfg = load_small(configs / 'mask-rcnn_damamba-t_fpn_1x_coco.py')
    cfg.model.neck.in_channels = list(SMALL['channels'])
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    model = build_model(cfg)
    model.init_weights()
    # Not multiples of 32: the preprocessor pads them.
    drawn = [draw_objects(61, 83) for _ in range(2)]
    data = dict(
        inputs=[image for image, _ in drawn],
        data_samples=[sample for _, sample in drawn],
    )
    log = train_once(cfg, model.train(), data)
    assert {'loss_rpn_cls', 'loss_cls', 'loss_bbox', 'loss_mask'} <= set(log)
    (found, _) = model.eval().test_step(data)
    found = found.pred_instances
    assert len(found) > 0 and found.scores.isfinite().all()
    assert found.masks.shape == (len(found), 61, 83)


@pytest.mark.parametrize('name', DETECTORS)
def test_mask_rcnn_is_the_released_one(mmdet, configs, name):
    """45 M, 65 M and 105 M parameters by the released README."""
    cfg = Config.fromfile(configs / f'{name}.py')
    assert cfg.default_scope == 'mmdet'
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    arch, drop_path_rate, millions = DETECTORS[name]
    assert cfg.model.backbone.arch == arch
    assert cfg.model.backbone.drop_path_rate == drop_path_rate
    with torch.device('meta'):
        model = build_model(cfg)
    assert tuple(cfg.model.neck.in_channels) == model.backbone.out_channels
    assert sum(count_params(model).values()) / 1e6 == pytest.approx(
        millions, abs=0.6
    )


def test_classifier_learns_and_classifies(mmpretrain, configs):
    cfg = load_small(configs / 'damamba-t_8xb128_in1k.py')
    cfg.model.head.update(in_channels=SMALL['channels'][-1], num_classes=5)
    cfg.data_preprocessor.num_classes = 5
    model = build_classifier(cfg)
    samples = [
        importlib.import_module('mmpretrain.structures')
        .DataSample()
        .set_gt_label(label)
        for label in (1, 4)
    ]
    images = torch.randint(0, 256, (2, 3, 61, 83), dtype=torch.uint8)
    data = dict(inputs=images, data_samples=samples)
    train_once(cfg, model.train(), data)
    found = model.eval().test_step(data)
    scores = torch.stack([sample.pred_score for sample in found])
    assert scores.shape == (2, 5)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


def test_released_classifier_fits(mmpretrain, configs, repo_root):
    """Keys of the released code, through the converter."""
    converter = load_script(
        repo_root / 'tools' / 'model_converters' / 'damamba.py'
    )
    cfg = Config.fromfile(configs / 'damamba-t_8xb128_in1k.py')
    with torch.device('meta'):
        expected = build_model(cfg).state_dict()
    head = {k: v for k, v in expected.items() if not k.startswith('backbone.')}
    assert head.keys() == {'head.fc.weight', 'head.fc.bias'}
    released = {
        'stages.0.blocks.0.token_mixer.Ds': torch.zeros(80),
        **{name: torch.zeros(x.shape) for name, x in head.items()},
    }
    converted = converter.convert_classifier(released)
    assert converted.keys() == {'backbone.stages.0.0.mixer.s6.D', *head}
    for name, value in converted.items():
        assert value.shape == expected[name].shape


def build_classifier(cfg):
    """As mmpretrain's runner does: the preprocessor stands beside it."""
    model = dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    model = build_model(Config(dict(cfg, model=model)))
    model.init_weights()
    return model


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifier_is_the_released_one(mmpretrain, configs, golden_dir, name):
    cfg = Config.fromfile(configs / f'{name}.py')
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.optim_wrapper.optimizer.lr == 1e-3
    arch, drop_path_rate = CLASSIFIERS[name]
    assert cfg.model.backbone.arch == arch
    assert cfg.model.backbone.drop_path_rate == drop_path_rate
    released = json.loads((golden_dir / 'counts.json').read_text())
    released = released['DAMamba'][arch[0].upper()]
    with torch.device('meta'):
        model = build_model(cfg)
    assert sum(count_params(model).values()) == released['cls_params']
