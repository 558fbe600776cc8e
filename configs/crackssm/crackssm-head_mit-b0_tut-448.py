# DPSM as a neck and CrackSSMHead behind mmseg's MiT-B0.
_base_ = './crackssm_tut-448.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
in_channels = (32, 64, 160, 256)
model = dict(
    backbone=dict(
        _delete_=True,
        type='MixVisionTransformer',
        embed_dims=32,
        num_layers=[2, 2, 2, 2],
        num_heads=[1, 2, 5, 8],
        drop_path_rate=0.1,
    ),
    neck=dict(type='DPSM', in_channels=in_channels, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=(*in_channels, 3)),
)
