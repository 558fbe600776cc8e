"""Convert CFD; see mmseg_crackssm/datasets/converters/cfd.py."""

import sys

from mmseg_crackssm.datasets.converters.cfd import main

if __name__ == '__main__':
    sys.exit(main())
