"""Broken webhooks: which mechanism a pod gets, if any."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from msgspec import to_builtins
from msgspec.structs import replace
from podid_webhook import configuration, mutation, review, server
from podid_webhook.cluster import ClusterView
from podid_webhook.configuration import NamespacedName
from podid_webhook.server import ReviewServer

from harness.subject.mutants.catalogue import SHARED_TEST, WHOLE_POD, mutant, override


@mutant(
    "webhook-irsa-wins",
    "WHK-201",
    may_kill={
        "WHK-203": SHARED_TEST,
        "WHK-204": "its pod has both",
        "WHK-305": "its account has both",
        "WHK-724": "its account has both",
        "WHK-*": "its account has both",
    },
)
def irsa_wins() -> None:
    """A role on the ServiceAccount counts more than an association."""

    def has_identity(original):
        return lambda self, account: original(self, account) and not configuration.irsa_account(account, self)

    override(ClusterView, "has_identity", has_identity)


@mutant(
    "webhook-both-mechanisms",
    "WHK-203",
    may_kill={"WHK-201": SHARED_TEST, "WHK-309": WHOLE_POD, "WHK-503": WHOLE_POD, "WHK-*": WHOLE_POD},
)
def both_mechanisms() -> None:
    """A pod with an association gets the variables of IRSA as well."""

    def variables(original):
        def of_both(pod, injection):
            role = (("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/both"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"))
            return (*original(pod, injection), mutation._group(*role))

        return of_both

    override(mutation, "_variables", variables)


@mutant(
    "webhook-overwrites-env",
    "WHK-204",
    may_kill={"WHK-310": "presence does not matter", "WHK-404": "presence does not matter"}
    | {f"WHK-{number}": "presence does not matter" for number in (503, 504, 505, 506, 507, 512, 518)},
)
def overwrites_env() -> None:
    """Variables that a container has already are replaced."""

    def complete(original):
        def anew(container, injection, groups):
            names = {name for group in groups for name in group.names}
            others = [variable for variable in container.env if to_builtins(variable)["name"] not in names]
            return original(replace(container, env=others, env_names=frozenset()), injection, groups)

        return anew

    override(mutation, "_complete", complete)


@mutant("webhook-case-insensitive", "WHK-205")
def case_insensitive() -> None:
    """Namespace and ServiceAccount match in any letter case."""

    def has_identity(_original):
        def folded(account):
            return NamespacedName(account.namespace.casefold(), account.name.casefold())

        return lambda self, account: any(
            folded(account) in map(folded, source.identities) for source in self.identities
        )

    override(ClusterView, "has_identity", has_identity)


@mutant(
    "webhook-kube-system-spared", "WHK-208", may_kill={"WHK-205": "one of its pairs is there", "WHK-113": SHARED_TEST}
)
def kube_system_spared() -> None:
    """Pods in kube-system are left alone."""

    def mutate_pod(original):
        return lambda pod, namespace, *rest: None if namespace == "kube-system" else original(pod, namespace, *rest)

    override(server, "mutate_pod", mutate_pod)


@mutant(
    "webhook-host-network-spared",
    "WHK-209",
    source="aws/amazon-eks-pod-identity-webhook: proposals to spare host network pods",
)
def host_network_spared() -> None:
    """Pods on the host network are left alone."""

    def decode_pod(original):
        def sparing(value):
            pod = original(value)
            spared = (to_builtins(value).get("spec") or {}).get("hostNetwork")
            return replace(pod, service_account="") if spared else pod

        return sparing

    override(review, "decode_pod", decode_pod)


@mutant("webhook-associated-wait", "WHK-212")
def associated_wait() -> None:
    """A pod with an association waits for its ServiceAccount."""
    override(ReviewServer, "_is_known", lambda _: lambda self, account: self._view.cached_account(account) is not None)
