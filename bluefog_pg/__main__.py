"""python -m bluefog_pg is bluefog-pg."""

import sys

from bluefog_pg.cli import main

sys.exit(main())
