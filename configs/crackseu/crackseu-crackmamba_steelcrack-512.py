_base_ = './crackseu_steelcrack-512.py'
model = dict(backbone=dict(blocks='CrackMambaBlock'))
