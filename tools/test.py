"""Test a checkpoint; see mmseg_crackssm/apis/test.py."""

import sys

from mmseg_crackssm.apis.test import main

if __name__ == '__main__':
    sys.exit(main())
