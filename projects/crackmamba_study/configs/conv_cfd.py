_base_ = [
    '../../../configs/_base_/models/crackseu.py',
    '../../../configs/_base_/datasets/cfd_256x256.py',
    '../../../configs/_base_/default_runtime.py',
    './_base_/short.py',
]
