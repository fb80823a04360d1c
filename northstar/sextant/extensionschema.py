# SPDX-License-Identifier: Apache-2.0
"""JSON schema of `custom.northstar`, as far as it concerns supervision and updates.

What other parts of the runtime, and others than the runtime, have in `custom` is not restricted.
"""

from __future__ import annotations

import signal
from typing import Any

from northstar.manifest import supervision as settings
from northstar.supervision import model

Schema = dict[str, Any]

VERSION_PATTERN = "^[0-9]+\\.[0-9]+\\.[0-9]+"

_DURATION: Schema = {
    "description": "A duration such as 500ms, 30s, 1m 30s",
    "anyOf": [{"type": "string", "pattern": "^([0-9]+ *[A-Za-z]+ *)+$"}, {"const": 0}],
}
_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]*$", "maxLength": 1024}
_CODES: Schema = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 255},
    "maxItems": settings.MAX_NAMES,
}
_COMMAND: Schema = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 1,
    "maxItems": settings.MAX_NAMES,
}
_SIGNAL: Schema = {
    "enum": [text for number in signal.Signals for text in (number.name.removeprefix("SIG"), number.name)]
}
_FLOOR: Schema = {
    "type": "string",
    "pattern": VERSION_PATTERN,
    "description": "The lowest version that may run once this one has proved itself in an update",
}
_COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": settings.MAX_BURST}


def schema() -> Schema:
    """The schema of `custom`."""
    sections: Schema = {
        "restart": _section(
            "When the container is started again after its end",
            {
                "policy": {"enum": list(model.POLICIES)},
                "delay": _DURATION,
                "factor": {"type": "number", "minimum": 1, "maximum": settings.MAX_FACTOR},
                "max_delay": _DURATION,
                "burst": _COUNT,
                "window": _DURATION,
                "reset_after": _DURATION,
                "on_burst": {"enum": list(model.ON_BURST)},
                "success_exit": _CODES,
                "never_exit": _CODES,
            },
        ),
        "ready": _section(
            "How it is known that the container is operational",
            {
                "by": {"enum": list(model.READY_BY)},
                "timeout": _DURATION,
                "timeout_max": _DURATION,
                "access": {"enum": list(model.ACCESS)},
            },
        ),
        "watchdog": _section(
            "The program gives a sign of life at least that often",
            {"interval": _DURATION, "interval_max": _DURATION, "signal": _SIGNAL},
            ["interval"],
        ),
        "health": _section(
            "A command that tells whether the container works",
            {
                "exec": {"anyOf": [{"type": "string", "pattern": "^/"}, _COMMAND]},
                "period": _DURATION,
                "timeout": _DURATION,
                "threshold": _COUNT,
                "start_period": _DURATION,
                "on_failure": {"enum": list(model.ON_FAILURE_OF_HEALTH)},
            },
            ["exec"],
        ),
        "stop": _section(
            "How the container is asked to end",
            {"signal": _SIGNAL, "timeout": _DURATION, "timeout_max": _DURATION},
        ),
        "after": {
            "type": "object",
            "description": "Conditions that an autostart waits for, by the names of other containers",
            "propertyNames": _NAME,
            "additionalProperties": {"enum": list(model.CONDITIONS)},
            "maxProperties": settings.MAX_NAMES,
        },
        "bind": {
            "description": "Other containers, with which it is stopped and restarted",
            "anyOf": [
                _NAME,
                {"type": "array", "items": _NAME, "uniqueItems": True, "maxItems": settings.MAX_NAMES},
            ],
        },
        "after_timeout": {**_DURATION, "description": "How long an autostart waits for its conditions"},
        "boot": {
            "enum": list(model.BOOT),
            "description": "Whether a boot is good only if the container becomes ready",
        },
        "fdstore": {
            "type": "integer",
            "minimum": 0,
            "maximum": settings.MAX_FDSTORE,
            "description": "How many descriptors are kept for the container between two runs",
        },
    }
    known = {"floor": _FLOOR, **{key: sections[key] for key in model.SECTIONS}}
    return {"properties": {"northstar": {"properties": known}}}


def _section(description: str, fields: Schema, required: list[str] | None = None) -> Schema:
    """An object, or a single value that stands for its first field."""
    whole: Schema = {
        "type": "object",
        "description": description,
        "properties": fields,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }
    return {"oneOf": [whole, next(iter(fields.values()))]}
