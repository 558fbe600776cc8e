# DPSM as a neck and CrackSSMHead behind mmseg's Swin-T.
_base_ = './crackssm_tut-448.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
in_channels = (96, 192, 384, 768)
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        drop_path_rate=0.2,
    ),
    neck=dict(type='DPSM', in_channels=in_channels, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=(*in_channels, 3)),
)
