_base_ = './conv_synthetic.py'
model = dict(backbone=dict(blocks='VimBlock'))
