"""Convert a data set; see mmseg_crackssm/datasets/converters/crackseg9k.py."""

import sys

from mmseg_crackssm.datasets.converters.crackseg9k import main

if __name__ == '__main__':
    sys.exit(main())
