# DPSM as a neck and CrackSSMHead behind mmseg's ResNet-18 (V1c).
_base_ = './crackssm_tut-448.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
in_channels = (64, 128, 256, 512)
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=18,
        norm_cfg=norm_cfg,
    ),
    neck=dict(type='DPSM', in_channels=in_channels, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=(*in_channels, 3)),
)
