"""Keep nginx as AWS's state and the targets' health have it.

Environment: ``PODID_CONTROL`` (URL of the lab's AWS), ``PODID_TOKEN_FILE``, ``PODID_ADDRESS`` (where to listen).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from harness.cloud.elbv2.health import Health
from harness.cloud.elbv2.nginx import render
from harness.cloud.elbv2.snapshot import Snapshot, read_snapshot
from harness.load_balancer.checks import Checks

LOG = logging.getLogger("load-balancer")

_CONFIGURATION = Path("/etc/nginx/nginx.conf")
_PERIOD = 0.5


class DataPlane:
    """nginx, and what it was told last."""

    def __init__(self, control: str, token_file: Path, address: str) -> None:
        """Start nginx without load balancers."""
        self._control = control.rstrip("/")
        self._token_file = token_file
        self._address = address
        self._text = render(Snapshot(), (), address)
        _CONFIGURATION.write_text(self._text)
        self._nginx = subprocess.Popen(["nginx", "-g", "daemon off;"])
        self._checks = Checks()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def step(self) -> None:
        """Ask for the state, check what is due, and reload nginx if anything changed."""
        health = self._checks.health()
        snapshot = read_snapshot(self._exchange(health))
        self._checks.follow(snapshot)
        healthy = {key for key, found in health.items() if found.state == "healthy"}
        text = render(snapshot, healthy, self._address)
        if text == self._text:
            return
        _CONFIGURATION.write_text(text)
        test = subprocess.run(["nginx", "-t", "-q"], capture_output=True, text=True, check=False)
        if test.returncode != 0:
            # nginx would keep the old one anyway; the log shall say so once.
            LOG.error("nginx refuses the new configuration and keeps the former: %s\n%s", test.stderr.strip(), text)
        else:
            self._nginx.send_signal(signal.SIGHUP)
        self._text = text

    def _exchange(self, health: Mapping[str, Health]) -> Any:
        """Report the health of targets, and return the state of AWS."""
        body = json.dumps({"health": {key: asdict(found) for key, found in health.items()}}).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is the lab's own http
            f"{self._control}/_podid/load-balancing",
            data=body,
            headers={
                "Authorization": f"Bearer {self._token_file.read_text().strip()}",
                "Content-Type": "application/json",
            },
        )
        with self._opener.open(request, timeout=10) as response:
            return json.load(response)

    @property
    def has_ended(self) -> bool:
        """Whether nginx is gone."""
        return self._nginx.poll() is not None

    def stop(self) -> None:
        """Let nginx finish what it serves."""
        self._nginx.send_signal(signal.SIGQUIT)
        self._nginx.wait()


def main() -> int:
    """Run until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    plane = DataPlane(os.environ["PODID_CONTROL"], Path(os.environ["PODID_TOKEN_FILE"]), os.environ["PODID_ADDRESS"])
    problem = ""
    while not stopped.wait(_PERIOD):
        if plane.has_ended:
            LOG.error("nginx ended")
            return 1
        begun = time.monotonic()
        try:
            plane.step()
            problem = ""
        except (OSError, ValueError, KeyError) as error:
            # Load balancers outlive the API that made them: what nginx was told last goes on.
            if str(error) != problem:
                LOG.warning("no news from AWS: %s", error)
            problem = str(error)
        if (took := time.monotonic() - begun) > 5:
            LOG.warning("one round took %.1f s", took)
    plane.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
