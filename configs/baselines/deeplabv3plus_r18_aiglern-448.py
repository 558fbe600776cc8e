_base_ = [
    '../_base_/models/deeplabv3plus_r18.py',
    '../_base_/datasets/aiglern_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_crack500.py',
]
