"""A table of runs; see mmseg_crackssm/analysis/benchmark_table.py."""

import sys

from mmseg_crackssm.analysis.benchmark_table import main

if __name__ == '__main__':
    sys.exit(main())
