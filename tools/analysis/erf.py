"""Map effective receptive fields; see mmseg_crackssm/analysis/erf.py."""

import sys

from mmseg_crackssm.analysis.erf import main

if __name__ == '__main__':
    sys.exit(main())
