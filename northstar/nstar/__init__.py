# SPDX-License-Identifier: Apache-2.0
"""nstar, the command line client of the console."""
