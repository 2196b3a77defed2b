"""Health checks of targets: each due target is asked in a thread of its own, as ELB's checkers are independent."""

from __future__ import annotations

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from harness.cloud.elbv2.health import Health, Observation, TargetState
from harness.cloud.elbv2.snapshot import HealthCheck, Snapshot, Target, target_key

__all__ = ["Checks"]

_AT_ONCE = 32


class Checks:
    """The state of every target in use."""

    def __init__(self) -> None:
        """Begin without targets."""
        self._lock = threading.Lock()
        self._states: dict[str, TargetState] = {}
        self._due: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE)

    def health(self) -> dict[str, Health]:
        """Return what is known, by :func:`target_key`."""
        with self._lock:
            return {key: state.health for key, state in self._states.items()}

    def follow(self, snapshot: Snapshot) -> None:
        """Forget targets that are gone, and begin the checks that are due."""
        wanted = {
            target_key(group.arn, target.address, target.port): (target, group.check)
            for group in snapshot.used_groups()
            for target in group.targets
        }
        now = time.monotonic()
        with self._lock:
            for key in self._states.keys() - wanted.keys():
                del self._states[key], self._due[key]
            for key, (target, check) in wanted.items():
                self._states.setdefault(key, TargetState())
                if self._due.setdefault(key, now) <= now:
                    self._due[key] = now + check.interval
                    self._pool.submit(self._check, key, target, check)

    def _check(self, key: str, target: Target, check: HealthCheck) -> None:
        seen = ask(target, check)
        with self._lock:
            if state := self._states.get(key):
                state.observe(seen, check)


def ask(target: Target, check: HealthCheck) -> Observation:
    """Make one check."""
    if not check.is_enabled:
        return Observation("answered", int(check.matcher.replace("-", ",").split(",")[0]))
    if not target.is_reachable:
        return Observation("timed-out")
    port = target.port if check.port == "traffic-port" else int(check.port)
    connection = http.client.HTTPConnection(target.address, port, timeout=check.timeout)
    try:
        headers = {"User-Agent": "ELB-HealthChecker/2.0", "Connection": "close"}
        connection.request("GET", check.path, headers=headers)
        return Observation("answered", connection.getresponse().status)
    except TimeoutError:
        return Observation("timed-out")
    except (OSError, http.client.HTTPException):
        return Observation("failed")
    finally:
        connection.close()
