"""The process: LocalStack with the plugin, or nothing.

LocalStack goes on without a plugin that it cannot load, which would mean without the guard. So the plugin is loaded
here first, and a process in which LocalStack would not find it ends at once.
"""

from __future__ import annotations

import importlib.metadata

from harness.cloud.localstack import internals
from harness.cloud.localstack.composition import emulator

_HOOKS = "localstack.hooks.on_infra_start"
_PROVIDERS = "localstack.aws.provider"
_MODULE = "harness.cloud.localstack"


def main() -> None:
    """Run until SIGTERM.

    Raises:
        RuntimeError: The entry points are not those of this version.
    """
    emulator()
    for group, names in ((_HOOKS, {"podid"}), (_PROVIDERS, {"eks:default", "eks-auth:default", "sts:podid"})):
        found = {entry.name: entry for entry in importlib.metadata.entry_points(group=group) if _MODULE in entry.value}
        if missing := names - found.keys():
            raise RuntimeError(f"the environment lacks the entry points {', '.join(sorted(missing))} of {group}")
        for entry in found.values():
            entry.load()
    internals.run_main()


if __name__ == "__main__":
    main()
