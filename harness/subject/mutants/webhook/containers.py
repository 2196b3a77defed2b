"""Broken webhooks: which containers get it, and the patch."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

from msgspec import to_builtins
from msgspec.structs import replace
from podid_webhook import configuration, mutation, review
from podid_webhook.pod import Containers

from harness.subject.mutants.catalogue import SHARED_TEST, WHOLE_POD, mutant, override


@mutant("webhook-init-skipped", "WHK-501", may_kill={"WHK-512": WHOLE_POD, "WHK-511": "an operation is missing"})
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
    | {"WHK-604": "nothing is skipped", "WHK-605": "nothing is skipped", "WHK-512": WHOLE_POD},
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
    may_kill={"WHK-515": "the security context goes", "WHK-512": WHOLE_POD},
    source="aws/amazon-eks-pod-identity-webhook#84, #165, #208",
)
def drops_unknown_fields() -> None:
    """A container loses the fields that the webhook was not built with."""
    known = {"name", "image", "command", "args", "workingDir", "ports", "env", "envFrom", "volumeMounts", "resources"}

    def complete(original):
        def decoded(*parts):
            return {key: value for key, value in to_builtins(original(*parts)).items() if key in known}

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
    may_kill={"WHK-317": SHARED_TEST, "WHK-512": WHOLE_POD, "WHK-518": SHARED_TEST},
)
def mount_twice() -> None:
    """A container that mounts the volume gets a second mount."""

    def complete(original):
        def remounted(container, injection, groups):
            return original(replace(container, mounted_volumes=frozenset()), injection, groups)

        return remounted

    override(mutation, "_complete", complete)
