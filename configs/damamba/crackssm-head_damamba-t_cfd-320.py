_base_ = [
    '../_base_/models/crackssm-head_damamba-t.py',
    '../_base_/datasets/cfd_320x320.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/budget_15min.py',
]
# Too few epochs for stochastic depth to help.
model = dict(backbone=dict(drop_path_rate=0.0))
