"""Find cracks in images; see mmseg_crackssm/apis/predict.py."""

import sys

from mmseg_crackssm.apis.predict import main

if __name__ == '__main__':
    sys.exit(main())
