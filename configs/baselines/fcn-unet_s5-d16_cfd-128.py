_base_ = [
    '../_base_/models/fcn_unet_s5-d16.py',
    '../_base_/datasets/cfd_128x128.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/budget_15min.py',
]
