# SPDX-License-Identifier: Apache-2.0
"""Containers: what is known of each, the rules, and the way from a start to the end of a run.

`runtime` is the face: what can be done, whoever asks. A start goes from there to `run`, which puts together
what it needs, to `plan`, which says what shall be, to `northstar.programs`, and to `spawning`. Uses
`storage`, `output`, `controlgroups` and `spawning`; knows nothing of connections and of monitoring, which
hear of events (`events`).
"""
