_base_ = [
    '../_base_/models/fast_scnn.py',
    '../_base_/datasets/cfd_320x320.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/budget_15min.py',
]
