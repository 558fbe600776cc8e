"""The CrackMamba paper's multiply-accumulates, to the last digit."""

import json
from functools import cache

import pytest
import torch
from torch import nn

from mmseg_crackssm.analysis import measure_config_as_papers
from mmseg_crackssm.analysis.flops import build_model
from mmseg_crackssm.analysis.paper_counting import count_macs_as_papers

SHAPES = {'deepcrack': (544, 384), 'steelcrack': (512, 512)}
# Tables 2 and 4, G.
PRINTED = {
    'conv': ('8.94', '11.22'),
    'vim': ('7.60', '9.54'),
    'vanilla-vss': ('7.94', '9.96'),
    'vss': ('8.26', '10.37'),
    'crackmamba': ('7.94', '9.97'),
}
RECIPES = {'vim': 'vim', 'vanilla-vss': 'vanillaVSS', 'vss': 'VSS'}


@pytest.fixture(scope='module')
def measured(repo_root):
    """Counts of a row of the paper's tables, each taken once."""
    folder = repo_root / 'projects' / 'crackmamba_study' / 'configs'

    @cache
    def measure(block, dataset):
        model = build_model(folder / f'{block}_{dataset}.py')
        return count_macs_as_papers(model, SHAPES[dataset])

    return measure


@pytest.fixture
def counts(golden_dir):
    return json.loads((golden_dir / 'counts.json').read_text())


@pytest.mark.parametrize('block', PRINTED)
@pytest.mark.parametrize('dataset', SHAPES)
def test_printed_digits(measured, block, dataset):
    column = list(SHAPES).index(dataset)
    macs = measured(block, dataset)
    assert f'{macs / 1e9:.2f}' == PRINTED[block][column]


@pytest.mark.parametrize('dataset', SHAPES)
def test_every_digit_of_the_counter(measured, counts, dataset):
    key = 'x'.join(map(str, SHAPES[dataset]))
    network = counts['CrackSeU_B']['macs_ptflops_0.6.9']
    found = measured('conv', dataset)
    assert found == network['LN_VT_inference'][key]
    for block, recipe in RECIPES.items():
        expected = counts['CrackMamba_table_recipes'][recipe]['macs'][key]
        assert measured(block, dataset) == expected, block


def test_batch_normalisation(repo_root, counts):
    path = repo_root / 'configs' / 'crackseu' / 'crackseu-bn_deepcrack-384.py'
    expected = counts['CrackSeU_B']['macs_ptflops_0.6.9']['BN_inference']
    report = measure_config_as_papers(path, (544, 384))
    assert report['macs'] == expected['544x384']
    # Beside it, what runs: no biases, norms, activations and pools.
    network = counts['CrackSeU_B']['aten_conv_matmul_macs_LN_VT_inference_G']
    shown = report['operator_macs'] / 1e9
    assert shown == pytest.approx(network['544x384'], abs=1e-4)


class Model(nn.Module):
    """Stands in for a segmentor."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x, mode):
        return self.layers(x)


@pytest.mark.parametrize(
    ('layer', 'expected'),
    [
        # 4 x 6 pixels of 2 channels.
        (nn.Conv2d(2, 3, 3, padding=1), 24 * (9 * 2 * 3 + 3)),
        (nn.Conv2d(2, 4, 1, groups=2, bias=False), 24 * 4),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), 96 * (4 * 2 * 3 + 3)),
        (nn.Linear(6, 5), 8 * 6 * 5 + 5),
        (nn.BatchNorm2d(2), 2 * 48),
        (nn.BatchNorm2d(2, affine=False), 48),
        (nn.LayerNorm(6), 0),
        (nn.ReLU(), 48),
        (nn.GELU(), 48),
        (nn.GELU(approximate='tanh'), 0),
        (nn.SiLU(), 0),
        (nn.MaxPool2d(2), 48),
        (nn.AdaptiveAvgPool2d(1), 48),
        (nn.Upsample(scale_factor=2), 192),
    ],
)
def test_rules(layer, expected):
    model = Model(layer).train()
    assert count_macs_as_papers(model, (4, 6), in_channels=2) == expected
    assert model.training and not layer._forward_hooks


def test_hooks_are_gone_after_an_error():
    model = Model(nn.Conv2d(3, 3, 9))
    with pytest.raises(RuntimeError):
        count_macs_as_papers(model, (4, 6))
    assert not any(m._forward_hooks for m in model.modules())
    assert torch.is_grad_enabled()
