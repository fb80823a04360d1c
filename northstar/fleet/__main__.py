# SPDX-License-Identifier: Apache-2.0
"""`python3 -m northstar.fleet` is `northstar-fleet`."""

import sys

from northstar.fleet.cli import main

sys.exit(main())
