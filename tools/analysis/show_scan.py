"""Draw where scans go; see mmseg_crackssm/analysis/show_scan.py."""

import sys

from mmseg_crackssm.analysis.show_scan import main

if __name__ == '__main__':
    sys.exit(main())
