"""Check a data set; see mmseg_crackssm/apis/check_dataset.py."""

import sys

from mmseg_crackssm.apis.check_dataset import main

if __name__ == '__main__':
    sys.exit(main())
