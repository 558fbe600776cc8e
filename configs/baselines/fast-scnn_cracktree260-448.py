_base_ = [
    '../_base_/models/fast_scnn.py',
    '../_base_/datasets/cracktree260_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_cracktree260.py',
]
