"""Can a run use a cluster that the harness did not create? Looks with the caller's rights, and changes nothing."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence

from harness import doctor_aws
from harness.cluster.base import ClusterSpec
from harness.cluster.existing.changes import Changes, Thing
from harness.cluster.existing.cluster import read_nodes
from harness.cluster.existing.rights import NEEDED, NEEDED_BY_SCENARIOS, Right, missing_rights
from harness.cluster.existing.target import Target, cluster_uid
from harness.doctor_check import Check
from harness.errors import HarnessFault, MissingPrerequisite
from harness.kube import ApiException, Kube
from harness.lab.existing_plan import COREDNS, local_address_towards, planned

__all__ = ["existing_checks", "require"]

_OPT_IN = "opt-in"
_PORTS = (80, 443)
_FORBIDDEN = 403


def existing_checks(target: Target) -> list[Check]:
    """Run every check.

    Raises:
        UsageError: No context is named, or there is none of that name.
    """
    target.require_named()
    if target.backend == "aws":
        # Whose credentials these are, before anything else is asked.
        account = doctor_aws.account_checks(target)
        if any(check.status == "fail" for check in account):
            return account
        return [*account, *_checks(target)]
    return _checks(target)


def _checks(target: Target) -> list[Check]:
    with target.connect() as kube:
        try:
            uid = cluster_uid(kube)
        except (HarnessFault, MissingPrerequisite) as error:
            fix = f"see: kubectl --context {target.context} get namespace kube-system"
            return [Check("cluster", "fail", error.message, f"context {target.context} to answer", fix)]
        identity = _identity(target, uid)
        # Of a cluster that is not the one that was meant nothing more is asked.
        if identity.status == "fail" and target.uid:
            return [identity]
        return [identity, *_cluster_checks(target, kube)]


def require(target: Target) -> None:
    """Refuse where a run could not work or is not allowed.

    Raises:
        UsageError: No context is named, or there is none of that name.
        MissingPrerequisite: Lists everything that is missing, with the ways out.
    """
    failures = [check for check in existing_checks(target) if check.status == "fail"]
    if failures:
        only_opt_in = all(check.name == _OPT_IN for check in failures)
        raise MissingPrerequisite(
            f"no run can use the cluster of context {target.context}; nothing was changed:\n"
            + "\n".join(f"  {check.line()}" for check in failures),
            hint=f"podid doctor {target.options(target.uid or 'UID')} shows all checks",
            kind="opt-in-required" if only_opt_in else "environment",
        )


def _identity(target: Target, uid: str) -> Check:
    if target.uid == uid:
        return Check("cluster", "ok", f"context {target.context}, uid {uid}", "")
    needed = f"the cluster with uid {target.uid}" if target.uid else "--cluster-uid, which says that this one is meant"
    fix = target.options(uid) if not target.uid else "name the right context; or, if this one is meant, its uid"
    return Check("cluster", "fail", f"context {target.context} is the cluster with uid {uid}", needed, fix)


def _cluster_checks(target: Target, kube: Kube) -> Iterator[Check]:
    if target.backend == "aws":
        yield _rights(kube, NEEDED_BY_SCENARIOS)
        yield _is_on_eks(target, kube)
        return
    yield _rights(kube, NEEDED)
    yield _opt_in(target)
    yield _conflicts(kube)
    yield _dns(kube)
    yield from _ways(target, kube)


def _is_on_eks(target: Target, kube: Kube) -> Check:
    """Tell whether context and EKS mean the same cluster: both know its issuer."""
    there = (kube.get("/.well-known/openid-configuration") or {}).get("issuer", "nobody")
    issuer = doctor_aws.issuer_on_eks(target)
    if there == issuer:
        return Check("EKS", "ok", f"{target.eks_cluster} is the cluster of context {target.context}", "")
    return Check(
        "EKS",
        "fail",
        f"tokens of context {target.context} are issued by {there}, those of {target.eks_cluster} by {issuer}",
        "one cluster",
        "name the cluster of this context with: --eks-cluster NAME; see: aws eks list-clusters",
    )


def _rights(kube: Kube, needed: Sequence[Right]) -> Check:
    missing = missing_rights(kube, needed)
    if not missing:
        return Check("rights", "ok", "everything that a run needs is allowed", "")
    return Check(
        "rights",
        "fail",
        f"not allowed: {', '.join(map(str, missing))}",
        "all of them",
        "use a context of an administrator; see: kubectl auth can-i --list",
    )


def _opt_in(target: Target) -> Check:
    if target.allows_install:
        return Check(_OPT_IN, "ok", "--allow-install", "")
    things = ", ".join(str(thing) for thing in planned(ClusterSpec()) if not thing.namespace)
    edited = " and ".join(map(str, COREDNS))
    return Check(
        _OPT_IN,
        "fail",
        "cluster-wide objects may not be touched",
        f"to create webhook, agent and {things}, and to edit {edited} until the run ends",
        "allow it with: --allow-install; podid run --dry-run lists every object",
    )


def _look_for(kube: Kube, things: Sequence[Thing]) -> tuple[list[Thing], list[Thing]]:
    """Return which objects are there, and which the caller may not look for."""
    there: list[Thing] = []
    hidden: list[Thing] = []
    for thing in things:
        try:
            there += Changes.existing_in(kube, [thing])
        except ApiException as error:
            if getattr(error, "status", None) != _FORBIDDEN:
                raise
            hidden.append(thing)
    return there, hidden


def _conflicts(kube: Kube) -> Check:
    there, hidden = _look_for(kube, planned(ClusterSpec()))
    if not there:
        unseen = f"; not allowed to look for: {', '.join(map(str, hidden))}" if hidden else ""
        return Check("room", "warn" if hidden else "ok", f"nothing of the same name is seen{unseen}", "to see them all")
    return Check(
        "room",
        "fail",
        f"the cluster has already: {', '.join(map(str, there))}",
        "no other agent or webhook of Pod Identity, since nothing of somebody's is replaced",
        "remove them, or what an earlier run left with: podid sweep --delete",
    )


def _dns(kube: Kube) -> Check:
    there, hidden = _look_for(kube, COREDNS)
    missing = [thing for thing in COREDNS if thing not in (*there, *hidden)]
    if not missing:
        return Check("cluster DNS", "ok", "CoreDNS", "")
    fix = "use a cluster whose DNS is CoreDNS, as kubeadm, kind and EKS install it"
    return Check("cluster DNS", "fail", f"no {' and no '.join(map(str, missing))}", "both, to answer for AWS", fix)


def _ways(target: Target, kube: Kube) -> Iterator[Check]:
    """Tell whether nodes can be reached, and AWS's ports be taken where they reach back."""
    try:
        node = read_nodes(kube)[0]
        address = target.aws_address or local_address_towards(node.address)
    except (HarnessFault, MissingPrerequisite) as error:
        yield Check("way to the nodes", "fail", error.message, "a node, and a route to it", error.hint)
        return
    yield Check("way to the nodes", "ok", f"AWS will be at {address}, which node {node.name} must reach", "")
    for port in _PORTS:
        if problem := _cannot_listen(address, port):
            fix = {
                errno.EACCES: "run as root, or: sysctl net.ipv4.ip_unprivileged_port_start=80",
                errno.EADDRINUSE: f"stop what listens there: ss -ltnp 'sport = :{port}'; or use another --aws-address",
            }
            yield Check(
                f"port {port}",
                "fail",
                f"{address}: {problem.strerror}",
                "it free, because SDKs ask AWS there",
                fix.get(problem.errno or 0, "name an address of this machine with: --aws-address ADDRESS"),
            )


def _cannot_listen(address: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            return error
    return None
