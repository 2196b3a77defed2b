"""Where each ServiceAccount is on its way from IRSA to Pod Identity, and what to do next (``podid migrate``)."""

from harness.migrate.gather import gather
from harness.migrate.steps import Account, Picture, PodUse, Step, plan

__all__ = ["Account", "Picture", "PodUse", "Step", "gather", "plan"]
