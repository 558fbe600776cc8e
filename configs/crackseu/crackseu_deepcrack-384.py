_base_ = [
    '../_base_/models/crackseu.py',
    '../_base_/datasets/deepcrack_384x384.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackmamba_80e_deepcrack.py',
]
