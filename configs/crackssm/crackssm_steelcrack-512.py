# CrackSSM by the recipe of He and Wang (CrackMamba), for comparison with them.
_base_ = [
    '../_base_/models/crackssm.py',
    '../_base_/datasets/steelcrack_512x512.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackmamba_70e_steelcrack.py',
]
