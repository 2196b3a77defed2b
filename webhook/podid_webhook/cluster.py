"""What the webhook knows of the cluster: the stores, and the watches that fill them."""

from collections.abc import Callable, Sequence

from podid_webhook.accounts import AccountStore
from podid_webhook.configmaps import RolesConfigMap
from podid_webhook.configuration import Account, NamespacedName
from podid_webhook.identities import IdentitySource


class ClusterView:
    """All stores together, as the decision asks for them (``configuration.Sources``)."""

    def __init__(self, annotation_prefix: str, identities: Sequence[IdentitySource], role_prefix: str = "") -> None:
        self.accounts = AccountStore(annotation_prefix, role_prefix)
        self.roles = RolesConfigMap()
        """Stays empty without ``--watch-config-map``."""
        self.identities = identities

    def has_identity(self, account: NamespacedName) -> bool:
        """Tell whether any source lists the pair: file and ConfigMap add up."""
        for source in self.identities:  # noqa: SIM110 - a generator would take longer than all of this
            if account in source.identities:
                return True
        return False

    def cached_account(self, account: NamespacedName) -> Account | None:
        """Return the watched service account."""
        return self.accounts.accounts.get(account)

    def configured_account(self, account: NamespacedName) -> Account | None:
        """Return the ConfigMap's entry for the pair."""
        return self.roles.accounts.get(f"{account.namespace}/{account.name}")

    def wildcard_account(self, name: str) -> Account | None:
        """Return the ConfigMap's entry for the name in every namespace."""
        return self.roles.accounts.get(f"*/{name}")


Readiness = Callable[[], Sequence[str]]
"""What keeps the webhook from being ready, nothing when it is."""
