# SPDX-License-Identifier: Apache-2.0
"""Programs that watch containers: debug commands, strace, perf. Not loaded unless the configuration asks."""
