"""Convert a data set; see mmseg_crackssm/datasets/converters/pairs.py."""

import sys

from mmseg_crackssm.datasets.converters.pairs import main

if __name__ == '__main__':
    sys.exit(main())
