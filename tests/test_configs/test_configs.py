"""Every shipped config is built; a few of them learn."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from checks import label_samples
from mmseg_crackssm.analysis import measure_config
from mmseg_crackssm.models import DPSM, DirectionHead

CONFIG_ROOT = Path(__file__).resolve().parents[2] / 'configs'
LEAVES = sorted(
    path.relative_to(CONFIG_ROOT).as_posix()
    for path in CONFIG_ROOT.rglob('*.py')
    if '_base_' not in path.parts
)
EXPECTED = {
    'crackssm/crackssm_tut-448.py',
    'crackssm/crackssm_cfd-320.py',
    'crackssm/crackssm_synthetic-256.py',
    'crackssm/crackssm-baseline_tut-448.py',
    'crackssm/crackssm-dpsm_tut-448.py',
    'crackssm/crackssm-wgm_tut-448.py',
    'crackssm/crackssm-gro_tut-448.py',
    'crackssm/crackssm-dpsm-wgm_tut-448.py',
    'crackssm/crackssm-no-ldir_tut-448.py',
    'crackssm/crackssm-axial_tut-448.py',
    'crackssm/crackssm-diagonal_tut-448.py',
    'crackssm/crackssm-snake_tut-448.py',
    'crackssm/crackssm-das_tut-448.py',
    'crackssm/crackssm-das-atr_tut-448.py',
    'crackssm/crackssm-das_cfd-320.py',
    'crackssm/crackssm-das-atr_cfd-320.py',
    'crackssm/crackssm-das_synthetic-256.py',
    'crackssm/crackssm-das-atr_synthetic-256.py',
    'crackssm/crackssm-head_r18_tut-448.py',
    'crackssm/crackssm-head_mit-b0_tut-448.py',
    'crackssm/crackssm-head_swin-t_tut-448.py',
    'crackssm/crackssm-crackmamba_tut-448.py',
    'crackssm/crackmamba-neck_r18_tut-448.py',
    'crackseu/crackseu_deepcrack-384.py',
    'crackseu/crackseu_steelcrack-512.py',
    'crackseu/crackseu_cfd-256.py',
    'crackseu/crackseu_synthetic-256.py',
    'crackseu/crackseu-bn_deepcrack-384.py',
    'crackseu/crackseu-crackmamba_deepcrack-384.py',
    'crackseu/crackseu-crackmamba_steelcrack-512.py',
    'crackseu/crackseu-crackmamba_cfd-256.py',
    'damamba/upernet_damamba-t_ade20k-512.py',
    'damamba/upernet_damamba-s_ade20k-512.py',
    'damamba/upernet_damamba-b_ade20k-512.py',
    'damamba/crackssm-head_damamba-t_tut-448.py',
    'damamba/crackssm-head_damamba-t_cfd-320.py',
    'baselines/fast-scnn_cfd-320.py',
    'baselines/fcn-unet_s5-d16_cfd-128.py',
    'baselines/segformer_mit-b0_cfd-320.py',
    'baselines/deeplabv3plus_r18_cfd-320.py',
    'baselines/pidnet-s_cfd-320.py',
}
# 150 classes of everyday scenes, no crack.
ADE20K = [leaf for leaf in LEAVES if '_ade20k-' in leaf]
# One of each network that finds cracks: on other data sets it is the same.
NETWORKS = [
    leaf
    for leaf in LEAVES
    if leaf not in ADE20K
    and ('-448' not in leaf or leaf.endswith('_tut-448.py'))
]
BASELINES = sorted(
    leaf.split('/')[1].split('_cfd')[0]
    for leaf in NETWORKS
    if leaf.startswith('baselines/') and '_cfd' in leaf
)
LEARNING = [
    leaf
    for leaf in LEAVES
    if 'crackssm-head_' in leaf
    and leaf.endswith('_tut-448.py')
    or 'crackmamba_tut' in leaf
    or 'crackmamba-neck' in leaf
    or leaf.startswith('crackseu/')
    and 'deepcrack' in leaf
]


def load(leaf):
    cfg = Config.fromfile(CONFIG_ROOT / leaf)
    init_default_scope(cfg.default_scope)
    return cfg


def test_the_list_of_configs_is_complete():
    assert EXPECTED <= set(LEAVES)


@pytest.mark.parametrize('leaf', LEAVES)
def test_config_builds(leaf):
    cfg = load(leaf)
    model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) > 0
    for key in ('train_dataloader', 'val_evaluator', 'optim_wrapper'):
        assert cfg.get(key), f'{leaf} has no {key}'
    assert len((CONFIG_ROOT / leaf).read_text().splitlines()) <= 25


def test_every_baseline_stands_on_every_data_set():
    names = {
        leaf.removeprefix('crackssm/crackssm_')
        for leaf in LEAVES
        if leaf.startswith('crackssm/crackssm_') and '-448' in leaf
    }
    assert len(names) >= 15 and len(BASELINES) == 5
    expected = {
        f'baselines/{baseline}_{name}'
        for baseline in BASELINES
        for name in names
    }
    assert expected <= set(LEAVES)


@pytest.mark.parametrize('leaf', NETWORKS)
def test_config_gives_one_crack_logit_per_pixel(leaf):
    # Ours take any size; mmseg's UNet is left to the preprocessor's padding,
    # which this way passes by.
    size = (64, 96) if leaf.startswith('baselines/') else (61, 83)
    model = revert_sync_batchnorm(MODELS.build(load(leaf).model)).eval()
    with torch.no_grad():
        (sample,) = model.predict(torch.randn(1, 3, *size))
    assert sample.seg_logits.data.shape == (1, *size)
    assert sample.seg_logits.data.isfinite().all()


@pytest.mark.parametrize('leaf', ADE20K)
def test_config_gives_a_logit_per_class_and_pixel(leaf):
    cfg = load(leaf)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    heads = (model.decode_head, model.auxiliary_head)
    channels = model.backbone.out_channels
    assert tuple(heads[0].in_channels) == channels
    assert heads[1].in_channels == channels[heads[1].in_index]
    assert {head.num_classes for head in heads} == {150}
    with torch.no_grad():
        (sample,) = model.predict(torch.randn(1, 3, 64, 96))
    assert sample.seg_logits.data.shape == (150, 64, 96)
    assert sample.seg_logits.data.isfinite().all()
    # Its own measure, and its classes: 0 in the files is none of them.
    assert cfg.val_evaluator == dict(type='IoUMetric', iou_metrics=['mIoU'])
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        (loading,) = (
            step
            for step in loader.dataset.pipeline
            if step.type == 'LoadAnnotations'
        )
        assert loading.reduce_zero_label


@pytest.mark.parametrize(
    'leaf', [leaf for leaf in NETWORKS if leaf.startswith('crackssm/')]
)
def test_head_and_dpsm_mean_the_same_directions(leaf):
    model = MODELS.build(load(leaf).model)
    found = [m for m in model.modules() if isinstance(m, DPSM)]
    head = getattr(model, 'auxiliary_head', None)
    if isinstance(head, DirectionHead):
        (dpsm,) = found
        assert head.loss_decode.directions == dpsm.directions
    else:
        assert head is None


@pytest.mark.parametrize('leaf', LEARNING)
def test_parts_learn_together(leaf):
    """A few iterations on one batch lower the loss."""
    model = revert_sync_batchnorm(MODELS.build(load(leaf).model))
    model.init_weights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[:, 30:34] = 1
    image = torch.randn(2, 3, 64, 64) - 3.0 * label[:, None]
    history = []
    for _ in range(10):
        losses = model.loss(image, label_samples(label))
        loss = sum(v for k, v in losses.items() if 'loss' in k)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.9 * history[0]


def test_size_is_the_published_one():
    """2.95 M parameters and 4.69 GFLOPs at 448 x 448 (CrackSSM)."""
    report = measure_config(
        CONFIG_ROOT / 'crackssm/crackssm_tut-448.py', shape=(448, 448)
    )
    assert report['params'] == pytest.approx(2.95e6, rel=0.01)
    assert report['macs'] == pytest.approx(4.69e9, rel=0.03)


def test_ablation_rows_differ_from_the_full_model_as_they_say():
    def count(leaf):
        model = MODELS.build(load(f'crackssm/{leaf}_tut-448.py').model)
        return sum(p.numel() for p in model.parameters())

    rows = {
        name: count(f'crackssm-{name}')
        for name in ('baseline', 'dpsm', 'wgm', 'gro', 'dpsm-wgm')
    }
    full = count('crackssm')
    dpsm, wgm, gro = (
        rows[name] - rows['baseline'] for name in ('dpsm', 'wgm', 'gro')
    )
    assert min(dpsm, wgm, gro) > 0
    assert rows['dpsm-wgm'] == rows['baseline'] + dpsm + wgm
    assert full == rows['baseline'] + dpsm + wgm + gro
    assert count('crackssm-no-ldir') == full
    assert count('crackssm-axial') == count('crackssm-diagonal') < full
