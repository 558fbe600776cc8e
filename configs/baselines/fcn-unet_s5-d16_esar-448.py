_base_ = [
    '../_base_/models/fcn_unet_s5-d16.py',
    '../_base_/datasets/esar_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_crack500.py',
]
