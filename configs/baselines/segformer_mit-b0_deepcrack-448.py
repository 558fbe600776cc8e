_base_ = [
    '../_base_/models/segformer_mit-b0.py',
    '../_base_/datasets/deepcrack_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_deepcrack.py',
]
