_base_ = [
    '../_base_/models/crackssm-head_damamba-t.py',
    '../_base_/datasets/tut_448x448.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackssm_300e_tut.py',
]
