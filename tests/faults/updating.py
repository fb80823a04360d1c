# SPDX-License-Identifier: Apache-2.0
"""What is done on the device while the power fails in an update.

updating.py remove NAME...             removes what there is of these names, with their data
updating.py begin OLD... -- NEW...     installs the old packages, starts them, and updates to the new ones
updating.py look NAME...               waits until no update is open; what runs then, as JSON
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from northstar.client import Client
from northstar.client.updates import NOTIFICATION, PENDING

URL = "unix:///run/northstar/console"
REPOSITORY = Path("/var/lib/northstar/repository")
STATE = REPOSITORY / ".state"
SETTLE = 0.5


def say(*words: object) -> None:
    print(*words, flush=True)


def begin(old: list[str], new: list[str]) -> None:
    """A line when the update is accepted, and one for its end."""
    with Client.connect(URL, notifications=True) as client:
        for path in old:
            client.start(client.install(path, "default"))
        wanted = [client.install(path, "default") for path in new]
        client.updates(follow=True)
        # Of other rounds it is known how bad a package is.
        client.update(wanted, settle=SETTLE, force=True)
        say("accepted")
        for notification in client.notifications(timeout=120):
            if notification.kind == NOTIFICATION and notification.details["phase"] not in PENDING:
                say("ended", notification.details["phase"])
                return


def look(names: list[str]) -> None:
    """Everything about these names, as JSON."""
    with Client.connect(URL) as client:
        deadline = time.monotonic() + 120
        while client.updates().open:
            if time.monotonic() > deadline:
                sys.exit("the update does not end")
            time.sleep(0.05)
        ours = [container for container in client.list() if container.partition(":")[0] in names]
        say(
            json.dumps(
                {
                    "running": [name for name in ours if client.inspect(name).process is not None],
                    "installed": ours,
                    "results": [last["result"] for last in client.updates().last],
                    "rubbish": [path.name for path in rubbish()],
                    "problems": client.problems(),
                }
            )
        )


def remove(names: list[str]) -> None:
    """Everything of these names, and all results."""
    with Client.connect(URL) as client:
        for last in client.updates().last:
            client.acknowledge_update(last["id"])
        ours = [container for container in client.list() if container.partition(":")[0] in names]
        for container in ours:
            if client.inspect(container).process is not None:
                client.stop(container, timeout=0)
        for container in ours:
            client.uninstall(container, wipe=True)


def rubbish() -> list[Path]:
    """Files of no use: all but packages and journals."""
    journals = list(STATE.iterdir()) if STATE.exists() else []
    found = [path for path in journals if path.suffix != ".json" or path.name.startswith(".")]
    return found + [path for path in REPOSITORY.iterdir() if path.suffix != ".npk" and path != STATE]


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "begin":
        end = rest.index("--")
        begin(rest[:end], rest[end + 1 :])
    elif command == "remove":
        remove(rest)
    else:
        look(rest)
