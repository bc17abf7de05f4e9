"""`python -m adlab`, as torchrun calls it: the command `adlab`."""

import sys

from adlab.cli import main

sys.exit(main())
