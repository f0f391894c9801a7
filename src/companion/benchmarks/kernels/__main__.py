"""`python -m companion.benchmarks.kernels`."""

import sys

from companion.benchmarks.kernels.benchmark import main

sys.exit(main())
