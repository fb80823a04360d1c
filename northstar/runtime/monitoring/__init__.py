# SPDX-License-Identifier: Apache-2.0
"""What others watch the daemon by: metrics, and the service manager that has started it.

Hears of events, and looks at the rest when somebody asks. Metrics are not loaded unless configured.
"""
