# SPDX-License-Identifier: Apache-2.0
"""`python3 -m northstar` is the daemon."""

from northstar.runtime.main import main

main()
