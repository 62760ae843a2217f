"""``python -m mlp_xp`` is the command ``mlp-xp``."""

import sys

from mlp_xp.cli import main

sys.exit(main())
