"""Pods to send, what the caches hold, and the pod as an API server would go on with it."""

import copy
import json
from typing import Any

from podid_webhook.configuration import Account, NamespacedName, Settings, account_from_annotations, mutate_pod
from podid_webhook.jsontext import encode
from podid_webhook.pod import decode_pod
from podid_webhook.review import decode_review

Pod = dict[str, Any]

ROLE = "arn:aws:iam::111122223333:role/s3-reader"
PI_PAIR = [
    {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"},
    {
        "name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "value": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
    },
]
PI_MOUNT = {
    "name": "eks-pod-identity-token",
    "readOnly": True,
    "mountPath": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
}
IRSA_PAIR = [
    {"name": "AWS_ROLE_ARN", "value": ROLE},
    {
        "name": "AWS_WEB_IDENTITY_TOKEN_FILE",
        "value": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
    },
]
IRSA_MOUNT = {
    "name": "aws-iam-token",
    "readOnly": True,
    "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount",
}
STS = {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"}
REGIONS = [{"name": "AWS_DEFAULT_REGION", "value": "seattle"}, {"name": "AWS_REGION", "value": "seattle"}]
LABELS = {"eks.amazonaws.com/pod-identity": "enabled"}


def pi_volume(expiration: int = 79200) -> Any:
    token = {
        "audience": "pods.eks.amazonaws.com",
        "expirationSeconds": expiration,
        "path": "eks-pod-identity-token",
    }
    return {"name": "eks-pod-identity-token", "projected": {"sources": [{"serviceAccountToken": token}]}}


def irsa_volume(expiration: int = 86400, **audience: str) -> Any:
    token = {**audience, "expirationSeconds": expiration, "path": "token"}
    return {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}


class World:
    """What the caches hold: service accounts by their annotations, and the names with an association."""

    def __init__(self, *identities: str, prefix: str = "eks.amazonaws.com", **annotations: dict[str, str]) -> None:
        self._identities = identities
        self._accounts = {
            name.replace("_", "-"): account_from_annotations(
                {f"{prefix}/{key}": value for key, value in keys.items()}, prefix
            )
            for name, keys in annotations.items()
        }
        self.config_map: dict[str, Account] = {}

    def has_identity(self, account: NamespacedName) -> bool:
        return account.namespace == "demo" and account.name in self._identities

    def cached_account(self, account: NamespacedName) -> Account | None:
        return self._accounts.get(account.name) if account.namespace == "demo" else None

    def configured_account(self, account: NamespacedName) -> Account | None:
        return self.config_map.get(f"{account.namespace}/{account.name}")

    def wildcard_account(self, name: str) -> Account | None:
        return self.config_map.get(f"*/{name}")


PI = World("s3-reader", s3_reader={})
IRSA = World(s3_reader={"role-arn": ROLE})


def pod(*containers: Pod, annotations: Any = None, **spec: Any) -> Pod:
    return {
        "metadata": {"name": "p"} | ({} if annotations is None else {"annotations": annotations}),
        "spec": {"serviceAccountName": "s3-reader", "containers": list(containers or [{"name": "app"}])} | spec,
    }


def patch_of(sent: Pod, world: World, settings: Settings | None = None) -> Any:
    """Return the patch, which is the same however the pod was decoded."""
    before = copy.deepcopy(sent)
    decoded = decode_review(json.dumps({"request": {"object": sent}}).encode()).pod
    mutations = [
        mutate_pod(pod, "demo", world, settings or Settings(), lambda low, _high: low)
        for pod in (decoded, decode_pod(sent))
    ]
    assert sent == before, "the pod as sent was changed"
    patch, again = [None if mutation is None else json.loads(encode([*mutation.patch])) for mutation in mutations]
    assert patch == again
    return patch


def applied(sent: Pod, world: World, settings: Settings | None = None) -> Pod:
    return apply_patch(sent, patch_of(sent, world, settings))


def apply_patch(document: Any, patch: Any) -> Any:
    """Apply RFC 6902's `add`, the only operation that the webhook sends; a path without its parent is an error."""
    result = copy.deepcopy(document)
    for operation in patch:
        assert operation.keys() == {"op", "path", "value"}
        assert operation["op"] == "add"
        start, *keys = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")]
        assert start == ""
        parent = result
        for key in keys[:-1]:
            parent = parent[int(key)] if isinstance(parent, list) else parent[key]
        if isinstance(parent, list):
            assert 0 <= int(keys[-1]) <= len(parent)
            parent.insert(int(keys[-1]), operation["value"])
        else:
            parent[keys[-1]] = operation["value"]
    return result


def paths(sent: Pod, world: World) -> list[str]:
    return [operation["path"] for operation in patch_of(sent, world)]


def expiration_of(result: Pod) -> int:
    return result["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"]
