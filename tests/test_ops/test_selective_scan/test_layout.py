import torch

from mmseg_crackssm.ops.selective_scan.layout import unit_time_stride


def test_rows_are_copied_only_where_steps_are_apart():
    x = torch.zeros(4, 6, 10)
    rows_apart = x[::2, :, :8]
    assert unit_time_stride(rows_apart) is rows_apart
    assert unit_time_stride(x[..., ::2]).stride(-1) == 1
