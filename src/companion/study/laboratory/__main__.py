"""`python -m companion.study.laboratory`: let every strategy play many laboratories."""

import sys

from companion.study.laboratory.coverage import main

if __name__ == "__main__":
    sys.exit(main())
