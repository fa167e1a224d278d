"""``python -m ds_trio_server`` is ``ds``."""

import sys

from .cli.main import main

sys.exit(main())
