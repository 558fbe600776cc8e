"""Score folders of predictions; see mmseg_crackssm/analysis/eval_masks.py."""

import sys

from mmseg_crackssm.analysis.eval_masks import main

if __name__ == '__main__':
    sys.exit(main())
