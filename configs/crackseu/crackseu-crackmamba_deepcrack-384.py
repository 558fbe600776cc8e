_base_ = './crackseu_deepcrack-384.py'
model = dict(backbone=dict(blocks='CrackMambaBlock'))
