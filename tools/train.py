"""Train a segmentor; see mmseg_crackssm/apis/train.py."""

import sys

from mmseg_crackssm.apis.train import main

if __name__ == '__main__':
    sys.exit(main())
