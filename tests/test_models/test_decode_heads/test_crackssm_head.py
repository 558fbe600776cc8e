import pytest
import torch
import torch.nn as nn
from native_scan import needs_kernel
from operator_checks import Recorder

from checks import label_samples, untrained_parameters
from mmseg_crackssm.models import CrackSSMHead
from mmseg_crackssm.models.decode_heads.crackssm_head import crop_centre
from mmseg_crackssm.models.layers.gro import GlobalReoptimization
from mmseg_crackssm.models.layers.wavelet_gate import WaveletGate
from mmseg_crackssm.ops import dwt2
from mmseg_crackssm.ops.selective_scan.backends import ENVIRONMENT_VARIABLE

CHANNELS = (8, 12, 16, 20, 3)


def build_head(**kwargs):
    return CrackSSMHead(
        in_channels=CHANNELS, channels=8, level_channels=(16, 12, 8), **kwargs
    )


def head_inputs(height=48, width=64, batch=2):
    maps = [
        torch.randn(
            batch, c, -(-height // 2 ** (i + 2)), -(-width // 2 ** (i + 2))
        )
        for i, c in enumerate(CHANNELS[:4])
    ]
    return [*maps, torch.randn(batch, 3, height, width)]


@pytest.mark.parametrize('size', [(48, 64), (33, 47), (34, 35), (97, 61)])
def test_logits_have_the_size_of_the_image(size):
    assert build_head().eval()(head_inputs(*size)).shape == (2, 1, *size)


@pytest.mark.parametrize('use_wgm', [True, False])
@pytest.mark.parametrize('use_gro', [True, False])
def test_every_parameter_learns(use_wgm, use_gro):
    head = build_head(use_wgm=use_wgm, use_gro=use_gro)
    logits = head(head_inputs())
    (logits * torch.randn_like(logits)).sum().backward()
    # The biases in front of a batch normalisation, which takes them away.
    assert all(
        name.endswith('.gates.0.bias') for name in untrained_parameters(head)
    )
    modules = {type(m) for m in head.modules()}
    assert (WaveletGate in modules) == use_wgm
    assert (GlobalReoptimization in modules) == use_gro


def test_losses_and_accuracy_by_hand():
    head = build_head()
    label = torch.tensor([[[1, 0], [0, 255]]])
    logits = torch.tensor([[[[2.0, 3.0], [-1.0, -1.0]]]])
    losses = head.loss_by_feat(logits, label_samples(label))
    assert set(losses) == {'loss_bce', 'loss_dice', 'acc_seg'}
    assert losses['acc_seg'].item() == pytest.approx(100 * 2 / 3)


def test_gate_formula():
    """W = σ(Conv(ReLU(BN(Conv(I))))) of one band, written out."""
    gate = WaveletGate(image_channels=1, channels=2).eval()
    bands = torch.randn(1, 3, 4, 4)
    x = torch.randn(1, 5, 4, 4)
    first, _, _, second, _ = gate.gates
    weights = []
    for k in range(3):
        hidden = first.weight[2 * k : 2 * k + 2].view(2, 1, 1) * bands[
            0, k
        ] + first.bias[2 * k : 2 * k + 2].view(2, 1, 1)
        hidden = (hidden / (1 + 1e-5) ** 0.5).relu()  # BN at its start
        value = (second.weight[k].view(2, 1, 1) * hidden).sum(0)
        weights.append((value + second.bias[k]).sigmoid())
    expected = x + x * sum(weights) / 3
    torch.testing.assert_close(gate(x, bands), expected)


def test_gro_formula():
    gro = GlobalReoptimization(channels=4)
    x, structure = torch.randn(2, 4, 6, 6), torch.randn(2, 3, 6, 6)
    latent = gro.project_feature(x) * gro.project_structure(structure)
    s = gro.similarity(latent)
    expected = (1 - s) * x + s * gro.project_edges(structure)
    torch.testing.assert_close(gro(x, structure), expected)


@pytest.mark.parametrize('wavelet', ['haar', 'db4'])
def test_logits_stay_in_place(wavelet):
    """The sub-pixel convolution neither shifts nor scales the map."""
    head = build_head(use_wgm=False, use_gro=False, wavelet=wavelet).eval()
    inputs = head_inputs(64, 64, batch=1)
    inputs[-1].requires_grad_()
    for level in inputs[:4]:
        level.requires_grad_()
    logits = head(inputs)
    (gradient,) = torch.autograd.grad(
        logits[0, 0, 32:34, 20:22].sum(), inputs[0]
    )
    ys, xs = gradient.abs().sum(dim=1)[0].nonzero().float().mean(dim=0)
    # Pixels 32..33 lie in F1's row 8, pixels 20..21 in column 5.
    assert abs(ys - 8) <= 0.5 and abs(xs - 5) <= 0.5


@pytest.mark.parametrize('size', [(64, 64), (33, 47)])
def test_bands_of_long_wavelets_stay_in_place(size):
    """An edge of the image answers where it is, not filter taps away."""
    image = torch.zeros(1, 1, *size)
    image[..., 20] = 1.0
    half = tuple((side + 1) // 2 for side in size)
    for wavelet in ('haar', 'db4', 'sym4'):
        band = crop_centre(dwt2(image, wavelet=wavelet)[2], size=half)
        assert band.shape[-2:] == half
        assert abs(int(band[0, 0, 5].abs().argmax()) - 10) <= 1


def test_gro_takes_operands_of_two_types():
    """As under CUDA's autocast behind a GroupNorm."""
    gro = GlobalReoptimization(channels=4)
    x, structure = torch.randn(1, 4, 6, 6), torch.randn(1, 3, 6, 6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = gro(x, structure)
    torch.testing.assert_close(out, gro(x, structure), rtol=0.05, atol=0.05)


def test_missing_image_is_explained():
    inputs = head_inputs()
    with pytest.raises(ValueError, match='ImageGuidedEncoderDecoder'):
        build_head()(inputs[:4])
    with pytest.raises(ValueError, match='five in_channels'):
        CrackSSMHead(in_channels=(8, 16, 32, 64))


def test_hooks_on_gro_see_the_feature():
    head = build_head().eval()
    inputs = head_inputs()
    expected = head(inputs)
    seen = []
    with head.gro.register_forward_hook(lambda *args: seen.append(args[2])):
        logits = head(inputs)
    assert seen[0].shape == (2, 8, 24, 32)
    torch.testing.assert_close(logits, expected)


def test_dropout_drops_channels_of_the_feature():
    head = build_head(dropout_ratio=0.5)
    inputs = head_inputs()
    assert not torch.equal(head(inputs), head(inputs))
    head.eval()
    assert torch.equal(head(inputs), head(inputs))


def channels_last_inputs(*size):
    *maps, image = head_inputs(*size)
    return [
        *(x.contiguous(memory_format=torch.channels_last) for x in maps),
        image,
    ]


@needs_kernel
@pytest.mark.parametrize('use_wgm', (True, False))
@pytest.mark.parametrize('size', ((48, 64), (33, 47)))
def test_levels_merge_at_once(use_wgm, size, monkeypatch):
    torch.manual_seed(0)
    head = build_head(use_wgm=use_wgm).eval()
    inputs = [x.requires_grad_() for x in channels_last_inputs(*size)]
    dy = torch.randn(2, 1, *size)

    def run():
        logits = head(inputs)
        return logits, *torch.autograd.grad(logits, inputs, dy)

    with Recorder() as recorder:
        results = run()
    assert recorder.kernels().count('upsample_concat') == 4
    assert recorder.kernels().count('upsample_concat_backward') == 4
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, 'torch')
    with Recorder() as recorder:
        expected = run()
    assert not recorder.kernels()
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-4)


def test_hooks_on_a_gate_see_the_gated_feature():
    head = build_head().eval()
    inputs = channels_last_inputs()
    expected = head(inputs)
    seen = []
    gate = head.levels[3].gate
    with gate.register_forward_hook(lambda *args: seen.append(args[2])):
        logits = head(inputs)
    assert seen[0].shape == (2, 8, 24, 32)
    torch.testing.assert_close(logits, expected)


def test_another_gate_runs_as_it_is():
    class NoGate(nn.Module):
        def forward(self, x, bands):
            return 0 * x

    head = build_head(use_gro=False).eval()
    for level in head.levels:
        level.gate = NoGate()
    inputs = channels_last_inputs()
    # Nothing of the features is left.
    assert torch.equal(head(inputs), head([2 * x for x in inputs]))
