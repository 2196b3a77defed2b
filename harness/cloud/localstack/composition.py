"""The one emulator of this process: LocalStack makes providers and handlers itself, so they find it here."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from harness.cloud.localstack.bootstrap import Bootstrap
from harness.cloud.localstack.emulator import Emulator, Settings

__all__ = ["BOOTSTRAP_FILE", "IMDS_LISTEN", "emulator"]

BOOTSTRAP_FILE = "PODID_BOOTSTRAP_FILE"
IMDS_LISTEN = "PODID_IMDS_LISTEN"


@functools.cache
def emulator() -> Emulator:
    """Return the emulator, composed from the process's environment at the first call.

    Raises:
        KeyError: ``PODID_BOOTSTRAP_FILE`` is not set.
        OSError: Its file cannot be read.
        ValueError: A file or variable has an unusable value.
    """
    return Emulator(Bootstrap.read(Path(os.environ[BOOTSTRAP_FILE])), Settings.read(os.environ))
