_base_ = [
    '../_base_/models/crackseu.py',
    '../_base_/datasets/steelcrack_512x512.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/crackmamba_70e_steelcrack.py',
]
