_base_ = [
    '../_base_/models/crackseu.py',
    '../_base_/datasets/cfd_256x256.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/budget_15min.py',
]
