"""Measure networks side by side; see mmseg_crackssm/analysis/benchmark.py."""

import sys
from contextlib import redirect_stdout

# What the libraries print on import must not mix with the result.
with redirect_stdout(sys.stderr):
    from mmseg_crackssm.analysis.benchmark import main

if __name__ == '__main__':
    sys.exit(main())
