_base_ = './conv_cfd.py'
model = dict(backbone=dict(blocks='VanillaVSSBlock'))
