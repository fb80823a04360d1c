# SPDX-License-Identifier: Apache-2.0
"""Supervision: what shall become of a container when it is started, when it ends, and while it runs.

Everything here is pure: no clock, no kernel, no daemon. `model` and `settings` are what a manifest asks for
in `custom.northstar`, `machine` decides about one container (its records are in `state`), `notification`
reads what a program tells in the protocol of sd_notify(3), `order` knows who waits for whom, `boot` decides
whether this boot is a good one. `northstar.runtime` carries the decisions out. See docs/supervision.md.
"""
