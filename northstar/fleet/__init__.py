# SPDX-License-Identifier: Apache-2.0
"""The operator's side of a fleet: packages are published to a hawkBit server, assigned and rolled out.

from northstar.fleet import Fleet

fleet = Fleet("https://updates.example.com", "admin", password)
fleet.publish(["hello-1.0.1.npk"], "hello")
fleet.assign("hello:1.0.1", "controllerId==board*")

For the build host and scripts of the operator; nothing of it is needed on a device.
"""

from northstar.fleet.api import ApiError
from northstar.fleet.fleet import Device, Fleet, Rollout

__all__ = ["ApiError", "Device", "Fleet", "Rollout"]
