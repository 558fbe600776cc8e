_base_ = [
    '../_base_/models/deeplabv3plus_r18.py',
    '../_base_/datasets/crackseg9k_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_crackseg9k.py',
]
