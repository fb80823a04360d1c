# SPDX-License-Identifier: Apache-2.0
"""The update agent: takes packages from a fleet server that speaks hawkBit's DDI, and lets the runtime
install them.

| module | what |
|---|---|
| `ddi` | the documents of the protocol, without input and output |
| `state`, `actions`, `session` | what is remembered, what can be done, what to do next: pure, too |
| `http`, `download`, `store`, `installer`, `facts` | the world: server, disk, runtime, device |
| `worker`, `main` | one poll and all that follows; the process that waits between polls |

A session is a generator of actions. Its state is kept durably before a step that must not be done twice, so a
session that is cut at any moment is gone on with by the next one: there is no other way of recovery.
"""
