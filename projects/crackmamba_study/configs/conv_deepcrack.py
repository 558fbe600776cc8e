_base_ = '../../../configs/crackseu/crackseu_deepcrack-384.py'
