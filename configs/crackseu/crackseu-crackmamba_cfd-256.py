_base_ = './crackseu_cfd-256.py'
model = dict(backbone=dict(blocks='CrackMambaBlock'))
