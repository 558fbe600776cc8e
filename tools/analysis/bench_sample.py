"""Time the sampling of DAS; see mmseg_crackssm/analysis/bench_sample.py."""

import sys

from mmseg_crackssm.analysis.bench_sample import main

if __name__ == '__main__':
    sys.exit(main())
