# CrackSSMHead behind DAMamba-T.
_base_ = [
    '../_base_/models/crackssm.py',
    '../_base_/datasets/tut_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_tut.py',
]

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        _delete_=True,
        type='DAMamba',
        arch='tiny',
        drop_path_rate=0.3,
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(in_channels=(80, 160, 320, 512, 3)),
    auxiliary_head=None,
)
