# SPDX-License-Identifier: Apache-2.0
"""Supervision: what shall become of a container when it is started, when it ends, and while it runs.

Everything here is pure: no clock, no kernel, no daemon. `model` is what a manifest asks for (its reader is
`northstar.manifest.supervision`), `machine` decides about one container (its records are in `state`),
`notification` reads what a program tells in the protocol of sd_notify(3), `order` knows who waits for whom,
`boot` decides whether this boot is a good one. `northstar.runtime.supervision` carries the decisions out. See
docs/supervision.md.
"""
