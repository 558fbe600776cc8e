_base_ = './conv_deepcrack.py'
model = dict(backbone=dict(blocks='VanillaVSSBlock'))
