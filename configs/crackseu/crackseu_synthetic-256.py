_base_ = [
    '../_base_/models/crackseu.py',
    '../_base_/datasets/synthetic_256x256.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/demo.py',
]
