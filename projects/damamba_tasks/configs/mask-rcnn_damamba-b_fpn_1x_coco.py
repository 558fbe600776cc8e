_base_ = './mask-rcnn_damamba-t_fpn_1x_coco.py'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.6),
    neck=dict(in_channels=[112, 224, 448, 640]),
)
