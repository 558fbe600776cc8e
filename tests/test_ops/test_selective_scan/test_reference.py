import torch

from mmseg_crackssm.ops.selective_scan import selective_scan_reference


def test_two_steps_by_hand():
    # One channel, one state, A = -ln 2: each unit of delta halves the state.
    y = selective_scan_reference(
        u=torch.tensor([[[3.0, 5.0]]]),
        delta=torch.tensor([[[1.0, 2.0]]]),
        A=torch.tensor([[0.5]]).log(),
        B=torch.tensor([[[[2.0, 1.0]]]]),
        C=torch.tensor([[[[1.0, 4.0]]]]),
        D=torch.tensor([10.0]),
        delta_bias=torch.tensor([1.0]),
    )
    # h_1 = 2 * 3 * 2 = 12; h_2 = 12 / 8 + 3 * 5 * 1 = 16.5
    torch.testing.assert_close(y, torch.tensor([[[42.0, 116.0]]]))


def test_channels_read_their_own_group():
    u = torch.ones(1, 4, 1)
    B = torch.tensor([1.0, 100.0]).view(1, 2, 1, 1)
    y = selective_scan_reference(
        u=u, delta=u, A=-torch.ones(4, 1), B=B, C=torch.ones_like(B)
    )
    assert y.flatten().tolist() == [1.0, 1.0, 100.0, 100.0]
