# CrackSSMHead behind DAMamba-T.
_base_ = './crackssm.py'

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
