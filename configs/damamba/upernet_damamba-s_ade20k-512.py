_base_ = './upernet_damamba-t_ade20k-512.py'
model = dict(
    backbone=dict(arch='small', drop_path_rate=0.4),
    decode_head=dict(in_channels=[96, 192, 384, 512]),
    auxiliary_head=dict(in_channels=384),
)
