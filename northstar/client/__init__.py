# SPDX-License-Identifier: Apache-2.0
"""Client library for the console of a runtime.

from northstar.client import Client

with Client.connect("unix:///run/northstar/console") as client:
    client.start("hello-world:0.0.1")
    print(client.inspect("hello-world:0.0.1").process)

`northstar.client.aio` has the same for asyncio. docs/client.md tells the rest.
"""

from northstar.client.address import DEFAULT_URL
from northstar.client.errors import (
    ClientError,
    ConnectionClosed,
    LaggedNotifications,
    PermissionDenied,
    ProtocolVersion,
    Refused,
)
from northstar.client.logs import Line, Output
from northstar.client.model import ContainerData, ExitStatus, Notification, ProcessData
from northstar.client.supervision import BootDecision, Waited
from northstar.client.sync import Client

__all__ = [
    "DEFAULT_URL",
    "BootDecision",
    "Client",
    "ClientError",
    "ConnectionClosed",
    "ContainerData",
    "ExitStatus",
    "LaggedNotifications",
    "Line",
    "Notification",
    "Output",
    "PermissionDenied",
    "ProcessData",
    "ProtocolVersion",
    "Refused",
    "Waited",
]
