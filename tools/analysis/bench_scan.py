"""Measure the scan's backends; see mmseg_crackssm/analysis/bench_scan.py."""

import sys
from contextlib import redirect_stdout

# What the libraries print on import must not mix with the result.
with redirect_stdout(sys.stderr):
    from mmseg_crackssm.analysis.bench_scan import main

if __name__ == '__main__':
    sys.exit(main())
