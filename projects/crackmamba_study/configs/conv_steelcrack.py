_base_ = '../../../configs/crackseu/crackseu_steelcrack-512.py'
