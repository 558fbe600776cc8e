"""CrackSSM under torch.compile, torch.export and torch's FLOP counter."""

import io

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from mmseg_crackssm.analysis import count_flops
from mmseg_crackssm.models.layers import S6
from mmseg_crackssm.ops.native import serving

SIZE = (64, 96)


class ImageToLogits(torch.nn.Module):
    """What mmseg's test loop runs on a preprocessed image."""

    def __init__(self, segmentor):
        super().__init__()
        self.segmentor = segmentor
        self.meta = dict(
            ori_shape=SIZE,
            img_shape=SIZE,
            pad_shape=SIZE,
            padding_size=[0, 0, 0, 0],
        )

    def forward(self, image):
        metas = [self.meta] * len(image)
        return self.segmentor.encode_decode(image, metas)


@pytest.fixture
def make_network(repo_root):
    """A function that builds the shipped CrackSSM, one block per level."""

    def make(**dpsm):
        init_default_scope('mmseg')
        cfg = Config.fromfile(
            repo_root / 'configs/crackssm/crackssm_cfd-320.py'
        )
        cfg.model.backbone.encoder.arch = dict(
            channels=32, depths=(1, 1, 1, 1)
        )
        cfg.model.decode_head.level_convs = (1, 1, 1, 1)
        cfg.model.backbone.dpsm.update(dpsm)
        model = MODELS.build(cfg.model)
        return ImageToLogits(revert_sync_batchnorm(model))

    yield make
    torch._dynamo.reset()


def scans_in(graph):
    return [node for node in graph.nodes if 'crackssm' in str(node.target)]


@pytest.fixture
def unfuse(monkeypatch):
    """Have an eager network round as a traced one, which is portable.

    Otherwise roundings of the sorting key may order tokens differently.
    """

    def change(network):
        for module in network.modules():
            if isinstance(module, S6):
                module.fused = False
        # Of the kernel only the scan remains.
        monkeypatch.setattr(serving, 'requested_backend', lambda _: 'torch')

    return change


def count_scans(network):
    return sum(isinstance(module, S6) for module in network.modules())


def run(function, network, image):
    """Logits and gradients by name, from the same random numbers."""
    torch.manual_seed(1)
    logits = function(image)
    logits.square().mean().backward()
    results = {'logits': logits.detach()}
    for name, parameter in network.named_parameters():
        results[name] = parameter.grad
        parameter.grad = None
    return results


def assert_same(got, expected, tolerance):
    for name, x in expected.items():
        # F_dir orders tokens; the auxiliary head alone gives it a gradient.
        assert (x is None) == ('direction_map' in name), name
        if x is None:
            assert got[name] is None, name
            continue
        # A bias before a normalisation has a gradient of roundings alone.
        scale = x.abs().max().clamp_min(1e-9)
        error = (got[name] - x).abs().max() / scale
        assert error <= tolerance, (name, error.item())


@pytest.mark.slow
@pytest.mark.parametrize('training', (False, True))
def test_compiles_to_one_graph(make_network, unfuse, training):
    network = make_network().train(training)
    graphs = []

    def keep_graph(module, example_inputs):
        graphs.append(module.graph)
        return module

    # fullgraph: a break is an error.
    compiled = torch.compile(network, fullgraph=True, backend=keep_graph)
    image = torch.randn(2, 3, *SIZE)
    got = run(compiled, network, image)
    assert [len(scans_in(graph)) for graph in graphs] == [count_scans(network)]
    unfuse(network)
    assert_same(got, run(network, network, image), tolerance=0)


@pytest.mark.slow
def test_compiled_backward_agrees(make_network):
    """Through AOTAutograd, whose decompositions round differently.

    The tokens stay in the snakes' order: where the interpolated sorting key
    has ties, roundings decide which token comes first.
    """
    network = make_network(scan='snake').double()
    compiled = torch.compile(network, fullgraph=True, backend='aot_eager')
    image = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    got = run(compiled, network, image)
    assert_same(got, run(network, network, image), tolerance=1e-9)


@pytest.mark.slow
def test_exported_network_can_be_saved(make_network, unfuse):
    network = make_network().eval()
    images = torch.randn(2, 1, 3, *SIZE)
    with torch.no_grad():
        program = torch.export.export(network, (images[0],))
    assert {str(node.target) for node in scans_in(program.graph)} == {
        'crackssm.selective_scan.default'
    }
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    unfuse(network)
    with torch.no_grad():
        for image in images:
            assert torch.equal(loaded(image), network(image))


def test_flop_counters_agree(make_network):
    network = make_network().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 3, *SIZE))
    report = count_flops(network.segmentor, shape=SIZE)
    assert report['scan_flops'] > 0
    # Torch counts two operations for a multiply-accumulate.
    total = 2 * report['macs'] + report['scan_flops']
    assert counter.get_total_flops() == total
