"""Time the scoring of images; see mmseg_crackssm/analysis/bench_eval.py."""

import sys

from mmseg_crackssm.analysis.bench_eval import main

if __name__ == '__main__':
    sys.exit(main())
