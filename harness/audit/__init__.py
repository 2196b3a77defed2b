"""What Pod Identity is set up to do in a cluster, and what is wrong with it (``podid audit``)."""

from harness.audit.checks import Check, Status, run_checks
from harness.audit.gather import gather
from harness.audit.inventory import Association, Inventory, Node, Role, account_of, association_table, drift, snapshot
from harness.audit.sarif import as_sarif

__all__ = [
    "Association",
    "Check",
    "Inventory",
    "Node",
    "Role",
    "Status",
    "account_of",
    "as_sarif",
    "association_table",
    "drift",
    "gather",
    "run_checks",
    "snapshot",
]
