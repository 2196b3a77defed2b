"""Broken webhooks, in the order of the webhook's chapters: reviews, decision, injection, containers, sources, process.

A seam is overridden where it is looked up: a function that a module has imported is replaced in that module.
"""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

from podid_webhook import configuration, goparse, main, mutation, review, server
from podid_webhook.accounts import AccountStore
from podid_webhook.cluster import ClusterView
from podid_webhook.configuration import NamespacedName
from podid_webhook.identities import IdentitySource
from podid_webhook.metrics import Metrics
from podid_webhook.pod import Containers
from podid_webhook.review import RefusedReviewError, Review
from podid_webhook.server import ReviewServer
from podid_webhook.tls import ServingCertificate

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override

_WHOLE_POD = "tests of one thing compare the whole pod"


def _injected(change):
    """Return what changes the injection of Pod Identity."""
    return lambda original: lambda *parts: change(original(*parts))


# --- Reviews ---------------------------------------------------------------------------------------------------------


@mutant("webhook-wrong-type-200", "WHK-102")
def wrong_type_200() -> None:
    """Content-Type is not looked at."""
    override(
        ReviewServer,
        "_handle",
        lambda original: lambda self, request: original(self, replace(request, content_type="application/json")),
    )


@mutant(
    "webhook-uid-lost",
    "WHK-104",
    may_kill={"WHK-101": SHARED_TEST, "WHK-112": SHARED_TEST, "WHK-121": "answers cannot be told apart"},
)
def uid_lost() -> None:
    """The answer has no uid."""
    override(Review, "answer", lambda original: lambda self, found: original(replace(self, uid=""), found))


@mutant(
    "webhook-typemeta-empty",
    "WHK-105",
    may_kill={"WHK-101": SHARED_TEST, "WHK-106": SHARED_TEST, "WHK-112": SHARED_TEST},
    source="aws/amazon-eks-pod-identity-webhook up to 0.6.17",
)
def typemeta_empty() -> None:
    """The answer has neither apiVersion nor kind, which the API server refuses."""
    override(Review, "answer", lambda original: lambda self, found: original(replace(self, type_meta={}), found))


@mutant(
    "webhook-denies-unknown",
    "WHK-111",
    may_kill={
        "WHK-103": "some of its reviews are of unlisted pods",
        "WHK-110": SHARED_TEST,
        "WHK-*": "tests of other sources ask whether a pod is left alone",
    },
)
def denies_unknown() -> None:
    """A pod without any configuration is denied."""

    def answer(original):
        def deny(self, found):
            if found is None:
                raise RefusedReviewError("no configuration", self.uid, self.type_meta)
            return original(self, found)

        return deny

    override(Review, "answer", answer)


@mutant("webhook-namespace-of-object", "WHK-115")
def namespace_of_object() -> None:
    """Look-ups use the namespace in the pod's metadata."""

    def decode_request(original):
        def of_object(request, type_meta):
            pod = request.get("object")
            metadata = pod.get("metadata") if isinstance(pod, dict) else None
            own = metadata.get("namespace") if isinstance(metadata, dict) else None
            return original({**request, "namespace": own or request.get("namespace")}, type_meta)

        return of_object

    override(review, "_decode_request", decode_request)


@mutant("webhook-default-account", "WHK-116", may_kill={"WHK-709": "a pod without an account has one"})
def default_account() -> None:
    """A pod that names no ServiceAccount is taken for one of ``default``."""

    def decode_pod(original):
        def named(value):
            pod = original(value)
            return replace(pod, service_account=pod.service_account or "default")

        return named

    override(review, "decode_pod", decode_pod)


# --- Decision --------------------------------------------------------------------------------------------------------


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
    may_kill={"WHK-201": SHARED_TEST, "WHK-309": _WHOLE_POD, "WHK-503": _WHOLE_POD, "WHK-*": _WHOLE_POD},
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
            others = [variable for variable in container.env if variable["name"] not in names]
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
            spared = (value.get("spec") or {}).get("hostNetwork")
            return replace(pod, service_account="") if spared else pod

        return sparing

    override(review, "decode_pod", decode_pod)


@mutant("webhook-associated-wait", "WHK-212")
def associated_wait() -> None:
    """A pod with an association waits for its ServiceAccount."""
    override(ReviewServer, "_is_known", lambda _: lambda self, account: self._view.cached_account(account) is not None)


# --- What Pod Identity injects ---------------------------------------------------------------------------------------


@mutant(
    "webhook-label-missing",
    "WHK-301",
    may_kill={"WHK-302": SHARED_TEST, "WHK-303": SHARED_TEST, "WHK-511": "an operation is missing"}
    | {"WHK-*": _WHOLE_POD},
    source="aws/amazon-eks-pod-identity-webhook: releases without the label",
)
def label_missing() -> None:
    """The pod gets no label."""
    override(configuration, "_pod_identity", _injected(lambda injection: replace(injection, labelled=False)))


@mutant(
    "webhook-audience-sts",
    "WHK-304",
    may_kill={"WHK-305": SHARED_TEST, "WHK-512": _WHOLE_POD, "WHK-861": SHARED_TEST},
)
def audience_sts() -> None:
    """The token is for STS, as IRSA's is."""
    change = _injected(lambda injection: replace(injection, audience="sts.amazonaws.com"))
    override(configuration, "_pod_identity", change)


@mutant("webhook-jitter-wide", "WHK-306", may_kill={"WHK-308": SHARED_TEST})
def jitter_wide() -> None:
    """The default expiration is drawn from a whole day."""
    override(configuration, "_JITTER_MIN", lambda _: 600)


@mutant("webhook-jitter-none", "WHK-306", may_kill={"WHK-308": "all pods draw the same"})
def jitter_none() -> None:
    """The default expiration is the same for every pod."""
    override(configuration, "_JITTER_MIN", lambda _: configuration.DEFAULT_TOKEN_EXPIRATION)


@mutant("webhook-jitter-always", "WHK-307", may_kill={"WHK-606": SHARED_TEST, "WHK-608": "no expiration is exact"})
def jitter_always() -> None:
    """Every expiration is spread, also one that somebody chose."""

    def vary(injection):
        return replace(injection, expiration_seconds=injection.expiration_seconds - 1)

    override(configuration, "_pod_identity", _injected(vary))


@mutant(
    "webhook-env-missing",
    "WHK-309",
    may_kill={"WHK-314": "there is no path to look at", "WHK-318": "there is no path to look at"}
    | {"WHK-*": _WHOLE_POD},
)
def env_missing() -> None:
    """The variable that names the token's file is missing."""

    def variables(original):
        def without_file(pod, injection):
            *others, pair = original(pod, injection)
            return (*others, replace(pair, variables=pair.variables[:1]))

        return without_file

    override(mutation, "_variables", variables)


@mutant(
    "webhook-order-reversed",
    "WHK-503",
    may_kill={"WHK-309": SHARED_TEST, "WHK-403": SHARED_TEST, "WHK-512": _WHOLE_POD},
)
def order_reversed() -> None:
    """The credential variables come before region and STS."""
    override(mutation, "_variables", lambda original: lambda pod, injection: original(pod, injection)[::-1])


@mutant("webhook-windows-slash", "WHK-520", "WHK-318", may_kill={"WHK-512": "one of its pods is for Windows"})
def windows_slash() -> None:
    """The token's path has slashes on Windows, too."""

    def variables(original):
        return lambda pod, injection: original(replace(pod, node_selector={}), injection)

    override(mutation, "_variables", variables)


@mutant("webhook-irsa-jitter", "WHK-402", may_kill={"WHK-401": SHARED_TEST, "WHK-512": _WHOLE_POD})
def irsa_jitter() -> None:
    """IRSA's expiration is spread like Pod Identity's."""

    def vary(injection):
        return replace(injection, expiration_seconds=min(injection.expiration_seconds, 80_000))

    override(configuration, "_irsa", _injected(vary))


@mutant("webhook-irsa-labelled", "WHK-407", may_kill={"WHK-512": _WHOLE_POD})
def irsa_labelled() -> None:
    """A pod with IRSA gets the label of Pod Identity."""
    override(configuration, "_irsa", _injected(lambda injection: replace(injection, labelled=True)))


# --- Containers and patch --------------------------------------------------------------------------------------------


@mutant("webhook-init-skipped", "WHK-501", may_kill={"WHK-512": _WHOLE_POD, "WHK-511": "an operation is missing"})
def init_skipped() -> None:
    """Init containers are left alone."""

    def decode_pod(original):
        def without(value):
            pod = original(value)
            return replace(pod, init_containers=Containers(pod.init_containers.key, None))

        return without

    override(review, "decode_pod", decode_pod)


@mutant(
    "webhook-skip-ignored",
    "WHK-516",
    may_kill={"WHK-601": SHARED_TEST, "WHK-602": SHARED_TEST, "WHK-603": "nothing is skipped"}
    | {"WHK-604": "nothing is skipped", "WHK-605": "nothing is skipped", "WHK-512": _WHOLE_POD},
)
def skip_ignored() -> None:
    """The annotation skip-containers has no effect."""
    override(configuration, "_skipped_containers", lambda _: lambda _pod, _settings: frozenset())


@mutant("webhook-skip-trimmed", "WHK-603")
def skip_trimmed() -> None:
    """Blanks around names in skip-containers are taken away."""

    def record(original):
        return lambda text: [name.strip() for name in original(text)]

    override(configuration, "first_csv_record", record)


@mutant(
    "webhook-drops-unknown-fields",
    "WHK-514",
    may_kill={"WHK-515": "the security context goes", "WHK-512": _WHOLE_POD},
    source="aws/amazon-eks-pod-identity-webhook#84, #165, #208",
)
def drops_unknown_fields() -> None:
    """A container loses the fields that the webhook was not built with."""
    known = {"name", "image", "command", "args", "workingDir", "ports", "env", "envFrom", "volumeMounts", "resources"}

    def complete(original):
        def decoded(*parts):
            return {key: value for key, value in original(*parts).items() if key in known}

        return decoded

    override(mutation, "_complete", complete)


@mutant(
    "webhook-not-idempotent",
    "WHK-517",
    may_kill={"WHK-204": "a name that is there comes twice", "WHK-310": "a name that is there comes twice"}
    | {f"WHK-{number}": "presence does not matter" for number in (302, 404, 504, 505, 506, 507, 512, 518, 872)},
)
def not_idempotent() -> None:
    """A container that is complete is completed again."""

    def complete(original):
        def again(container, injection, groups):
            return original(replace(container, env_names=frozenset()), injection, groups)

        return again

    override(mutation, "_complete", complete)


@mutant(
    "webhook-index-on-null",
    "WHK-510",
    may_kill={"WHK-513": "the patch does not apply", "WHK-*": "no pod without volumes can be mutated"},
)
def index_on_null() -> None:
    """The volume is put into a list that the pod does not have."""

    def operation(original):
        def at_zero(pod, injection):
            return original(replace(pod, volume_names=pod.volume_names or frozenset()), injection)

        return at_zero

    override(mutation, "_volume_operation", operation)


@mutant(
    "webhook-mount-twice",
    "WHK-507",
    may_kill={"WHK-317": SHARED_TEST, "WHK-512": _WHOLE_POD, "WHK-518": SHARED_TEST},
)
def mount_twice() -> None:
    """A container that mounts the volume gets a second mount."""

    def complete(original):
        def remounted(container, injection, groups):
            return original(replace(container, mounted_volumes=frozenset()), injection, groups)

        return remounted

    override(mutation, "_complete", complete)


# --- Annotations, identities, ServiceAccounts ------------------------------------------------------------------------


@mutant("webhook-min-unclamped", "WHK-607", may_kill={"WHK-606": SHARED_TEST})
def min_unclamped() -> None:
    """An expiration under 600 stays, and the API server refuses the pod."""
    override(configuration, "MIN_TOKEN_EXPIRATION", lambda _: -(1 << 63))


@mutant("webhook-long-cut", "WHK-608", may_kill={"WHK-606": SHARED_TEST})
def long_cut() -> None:
    """An expiration over a day is cut."""

    def parse(original):
        return lambda text: min(original(text), configuration.DEFAULT_TOKEN_EXPIRATION)

    override(configuration, "parse_int64", parse)


@mutant("webhook-bool-strict", "WHK-609")
def bool_strict() -> None:
    """Of Go's spellings of a truth value only two are known."""

    def parse(_original):
        return lambda text: goparse.parse_bool(text if text in {"true", "false"} else "")

    override(configuration, "parse_bool", parse)


@mutant(
    "webhook-stale-identities",
    "WHK-701",
    may_kill={f"WHK-{number}": SHARED_TEST for number in (702, 703, 704, 705, 706, 707, 708, 710)},
)
def stale_identities() -> None:
    """An association that is deleted goes on to count."""

    def load(original):
        def growing(self, content):
            before = self.identities
            original(self, content)
            self.identities |= before

        return growing

    override(IdentitySource, "load", load)


@mutant("webhook-broken-file-empties", "WHK-704")
def broken_file_empties() -> None:
    """While the identities file is broken, nobody has an association."""

    def load(original):
        def emptying(self, content):
            self.identities = frozenset()
            original(self, content)

        return emptying

    override(IdentitySource, "load", load)


@mutant(
    "webhook-accounts-frozen",
    "WHK-722",
    may_kill={
        "WHK-721": "the watch tells nothing",
        "WHK-727": "waiters are not woken by the watch",
        "WHK-732": "the watch tells nothing",
        "WHK-*": "annotations that a test sets are not seen",
    },
)
def accounts_frozen() -> None:
    """Changes of ServiceAccounts after the start have no effect."""

    def put(original):
        return lambda self, item: None if self.used else original(self, item)

    override(AccountStore, "put", put)


@mutant("webhook-deleted-account-kept", "WHK-722", may_kill={"WHK-732": SHARED_TEST})
def deleted_account_kept() -> None:
    """A deleted ServiceAccount goes on to count."""
    override(AccountStore, "remove", lambda _: lambda _self, _item: None)


@mutant("webhook-roles-reversed", "WHK-723", may_kill={"WHK-742": SHARED_TEST})
def roles_reversed() -> None:
    """A wildcard entry of the ConfigMap counts more than the ServiceAccount."""

    def irsa_account(original):
        return lambda account, sources: sources.wildcard_account(account.name) or original(account, sources)

    override(configuration, "irsa_account", irsa_account)


@mutant("webhook-reads-unshared", "WHK-730", may_kill={"WHK-727": SHARED_TEST})
def reads_unshared() -> None:
    """Each review that waits for an account reads it."""

    def arrival(original):
        @contextmanager
        def always_first(self, account):
            with original(self, account) as (waiter, _first):
                yield waiter, True

        return always_first

    override(AccountStore, "arrival", arrival)


# --- Certificates and operation --------------------------------------------------------------------------------------


@mutant(
    "webhook-certificate-frozen",
    "WHK-822",
    "WHK-825",
    may_kill={"WHK-823": "nothing is said of a broken pair", "WHK-842": SHARED_TEST},
)
def certificate_frozen() -> None:
    """A renewed certificate is used after a restart only."""
    override(ServingCertificate, "changed", lambda _: lambda _self, _contents: None)


@mutant("webhook-ready-at-once", "WHK-842", may_kill={"WHK-848": SHARED_TEST})
def ready_at_once() -> None:
    """It is ready before it knows anything of the cluster."""
    override(main.Webhook, "_readiness", lambda _: lambda _self, _accounts: [])


@mutant("webhook-count-wrong", "WHK-844", may_kill={"WHK-845": SHARED_TEST})
def count_wrong() -> None:
    """A request is counted twice."""

    def observe(original):
        def twice(self, *request):
            original(self, *request)
            original(self, *request)

        return twice

    override(Metrics, "observe_request", observe)


@mutant("webhook-sigterm-abort", "WHK-851")
def sigterm_abort() -> None:
    """A signal ends the process in the middle of its reviews."""
    override(main.signal, "SIGTERM", lambda _: main.signal.SIGUSR1)


@mutant("webhook-pod-in-log", "WHK-871")
def pod_in_log() -> None:
    """The log tells the containers of each pod."""

    def log_outcome(original):
        def told(the_review, found, *, timed_out):
            server._log.info("containers: %s", [container.json for container in the_review.pod.containers.items or ()])
            original(the_review, found, timed_out=timed_out)

        return told

    override(server, "_log_outcome", log_outcome)


@mutant("webhook-reviews-unlogged", "WHK-872")
def reviews_unlogged() -> None:
    """The log has no line for reviews."""
    override(server, "_log_outcome", lambda _: lambda *_outcome, timed_out: None)
