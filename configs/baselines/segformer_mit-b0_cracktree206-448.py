_base_ = [
    '../_base_/models/segformer_mit-b0.py',
    '../_base_/datasets/cracktree206_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_crack500.py',
]
