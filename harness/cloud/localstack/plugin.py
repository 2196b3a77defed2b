"""What LocalStack loads at its start; registered as an entry point in ``pyproject.toml``."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

from harness.cloud.credentials import new_secret
from harness.cloud.localstack import internals
from harness.cloud.localstack.composition import IMDS_LISTEN, emulator
from harness.cloud.localstack.control_route import ControlRoute
from harness.cloud.localstack.failures import refusal_of
from harness.cloud.localstack.gate import Gate
from harness.cloud.localstack.guard import Guard, pin_service
from harness.cloud.localstack.imds_server import ImdsServer
from harness.cloud.localstack.recorder import Recorder, finish_refusal

__all__ = ["install"]


# Above 0, so that services are loaded behind it; below 100, after LocalStack's patches of moto.
@internals.on_start(priority=50)
def install() -> None:
    """Install guard, gate and recorder, and start the metadata service, before the port opens (EMU-PLUGIN-EARLY)."""
    lab = emulator()
    internals.listen_on_given_addresses()
    internals.keep_objects_in(Path(tempfile.gettempdir()) / "s3")
    internals.install_handlers(
        guard=Guard(lab, ControlRoute(lab)),
        pin_service=pin_service,
        gate=Gate(lab),
        recorder=Recorder(lab),
        refusal_of=refusal_of,
        finish_refusal=finish_refusal,
    )
    internals.mint_access_keys(lambda: new_secret(lab.ids))
    lab.create_first_identities()
    internals.when_ready(_settle)
    if listen := os.environ.get(IMDS_LISTEN):
        ImdsServer(lab.imds, listen).start()


def _settle() -> None:
    """Take what LocalStack consists of out of the collector's sight: looking through it stops every call for 0.3 s."""
    gc.collect()
    gc.freeze()
