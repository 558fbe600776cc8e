"""Configs over several seeds; see mmseg_crackssm/analysis/train_seeds.py."""

import sys

from mmseg_crackssm.analysis.train_seeds import main

if __name__ == '__main__':
    sys.exit(main())
