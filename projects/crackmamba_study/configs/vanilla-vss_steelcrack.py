_base_ = './conv_steelcrack.py'
model = dict(backbone=dict(blocks='VanillaVSSBlock'))
