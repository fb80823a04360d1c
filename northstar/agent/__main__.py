# SPDX-License-Identifier: Apache-2.0
"""`python3 -m northstar.agent` is `northstar-agent`."""

import sys

from northstar.agent.main import main

sys.exit(main())
