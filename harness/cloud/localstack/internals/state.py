"""What LocalStack and moto keep: looked at, made, and forgotten."""

from __future__ import annotations

import functools
import importlib
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cloud.localstack.internals.lookup import lookup


def iam_backend(account: str) -> Any:
    """Return moto's IAM of an account; made when it is not there."""
    return lookup("moto.iam.models", "iam_backends")[account]["aws"]


def access_key_owner(access_key_id: str, account: str) -> tuple[Any, Any] | None:
    """Return moto's (user, active access key) of a key id, or None."""
    if account not in lookup("moto.iam.models", "iam_backends"):
        return None
    backend = iam_backend(account)
    filed = backend.access_keys.get(access_key_id)
    named = backend.users.get(filed.user_name) if filed else None
    # A user that was renamed is not found under the name that its key was filed with.
    for user in [named] if named else list(backend.users.values()):
        for key in user.access_keys:
            if key.access_key_id == access_key_id and key.status == "Active":
                return user, key
    return None


def mint_access_keys(new_secret: Callable[[], str]) -> None:
    """Give the access keys that moto's IAM creates secrets of ours."""
    access_key = lookup("moto.iam.models", "AccessKey")
    create = access_key.__init__

    @functools.wraps(create)
    def create_with_our_secret(self: Any, *arguments: Any, **members: Any) -> None:
        create(self, *arguments, **members)
        self.secret_access_key = new_secret()

    access_key.__init__ = create_with_our_secret


def oidc_client_ids(account: str, arn: str) -> tuple[str, ...] | None:
    """Return the client ids of an account's OIDC provider, None without such a provider."""
    provider = iam_backend(account).open_id_providers.get(arn)
    return tuple(map(str, provider.client_id_list)) if provider else None


def s3_bucket(name: str) -> Any | None:
    """Return LocalStack's bucket of this name, of whatever account."""
    stores = lookup("localstack.services.s3.models", "s3_stores")
    for regions in list(stores.values()):
        # An account's regions share its buckets.
        store = next(iter(list(regions.values())), None)
        if store is not None and (bucket := store.buckets.get(name)) is not None:
            return bucket
    return None


def s3_has_object(bucket: str, key: str) -> bool:
    """Tell whether a bucket has a current object with this key."""
    found = s3_bucket(bucket)
    stored = found.objects.get(key) if found else None
    return stored is not None and not isinstance(stored, lookup("localstack.services.s3.models", "S3DeleteMarker"))


def s3_object_tags(bucket: str, key: str, version: str) -> dict[str, str]:
    """Return the tags of an object, or of a version of it; empty when it is not there."""
    found = s3_bucket(bucket)
    if found is None:
        return {}
    try:
        stored = found.get_object(key=key, version_id=version or None)
    except lookup("localstack.aws.api", "ServiceException"):
        return {}
    store = lookup("localstack.services.s3.models", "s3_stores")[found.bucket_account_id][found.bucket_region]
    identifier = lookup("localstack.services.s3.utils", "get_unique_key_id")(bucket, key, stored.version_id)
    return {str(name): str(value) for name, value in store.tags.get_tags(identifier).items()}


def dynamodb_key_schema(account: str, region: str, table: str, index: str) -> list[Mapping[str, str]]:
    """Return the key schema of moto's table or of an index of it; empty without it."""
    found = lookup("moto.dynamodb.models", "dynamodb_backends")[account][region].tables.get(table)
    if found is None or not index:
        return list(found.schema) if found else []
    indexes: list[Any] = [*found.indexes, *found.global_indexes]
    schemas: list[list[Mapping[str, str]]] = [list(one.schema) for one in indexes if one.name == index]
    return schemas[0] if schemas else []


def dynamodb_tags(account: str, region: str, table: str) -> dict[str, str]:
    """Return the tags of moto's table; empty without it."""
    found = lookup("moto.dynamodb.models", "dynamodb_backends")[account][region].tables.get(table)
    tags: Sequence[Mapping[str, str]] = found.tags if found else ()
    return {str(tag["Key"]): str(tag["Value"]) for tag in tags}


def kms_tags(account: str, region: str, arn: str) -> dict[str, str]:
    """Return the tags of the key with this ARN."""
    store = lookup("localstack.services.kms.models", "kms_stores")[account][region]
    return {str(name): str(value) for name, value in store.tags.get_tags(arn).items()}


def kms_key(account: str, region: str, named: str, ciphertext: bytes) -> tuple[str, str] | None:
    """Return ARN and policy of the key with this id, alias or ARN of either, else of a ciphertext's key."""
    if named.startswith("arn:"):
        if named.count(":") != 5:
            return None
        _, _, _, region, account, named = named.split(":")
        named = named.removeprefix("key/")
    if not named and ciphertext:
        try:
            named = lookup("localstack.services.kms.models", "deserialize_ciphertext_blob")(ciphertext).key_id
        except (ValueError, struct.error):
            return None
    store = lookup("localstack.services.kms.models", "kms_stores")[account][region]
    if named.startswith("alias/"):
        alias = store.aliases.get(named)
        named = alias.metadata["TargetKeyId"] if alias else ""
    key = store.keys.get(named)
    return (str(key.metadata["Arn"]), str(key.policy)) if key else None


def secrets(account: str, region: str) -> Iterator[Any]:
    """Return moto's secrets of an account and region."""
    backends = lookup("moto.secretsmanager.models", "secretsmanager_backends")
    return iter(list(backends[account][region].secrets.values()))


def ec2_backend(account: str, region: str) -> Any:
    """Return moto's EC2 of an account and region; made when it is not there, with a default VPC.

    LocalStack patches moto when it loads the service, which may be after the gate.
    """
    lookup("localstack.services.plugins", "SERVICE_PLUGINS").require("ec2")
    return lookup("moto.ec2.models", "ec2_backends")[account][region]


def elbv2_backend(account: str, region: str) -> Any:
    """Return moto's load balancers of an account and region; made when it is not there."""
    return lookup("moto.elbv2.models", "elbv2_backends")[account][region]


def elbv2_scopes() -> list[tuple[str, str]]:
    """Return (account, region) pairs that have load balancers."""
    backends = lookup("moto.elbv2.models", "elbv2_backends")
    return [
        (str(account), str(region))
        for account in list(backends)
        for region in list(backends[account])
        if backends[account][region].load_balancers
    ]


def create_vpc(backend: Any, vpc_id: str, cidr: str) -> Any:
    """Create a VPC with a given id; the tag that LocalStack has for that would show."""
    identifier = lookup("localstack.services.ec2.patches", "VpcIdentifier")(
        backend.account_id, backend.region_name, cidr
    )
    with lookup("localstack.utils.id_generator", "localstack_id_manager").custom_id(identifier, vpc_id):
        return backend.create_vpc(cidr)


def matching_secrets(account: str, region: str, filters: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return moto's secrets that all filters match, as its own ListSecrets finds them; none for unknown filters."""
    models: Any = importlib.import_module("moto.secretsmanager.models")
    if any(entry.get("Key") not in models.filter_keys() or not entry.get("Values") for entry in filters):
        return []
    return [secret for secret in secrets(account, region) if models._matches(secret, list(filters))]  # noqa: SLF001


def parameter_tags(account: str, region: str, name: str) -> dict[str, str]:
    """Return the tags of a parameter of Parameter Store, given without the slash before its name."""
    backend = lookup("moto.ssm.models", "ssm_backends")[account][region]
    filed: Mapping[str, Mapping[str, str]] = backend._resource_tags.get("Parameter") or {}  # noqa: SLF001
    return dict(filed.get(f"/{name}") or filed.get(name) or {})


def reset_services() -> None:
    """Empty every loaded service (``emulator.md`` section 11)."""
    manager = lookup("localstack.services.plugins", "SERVICE_PLUGINS")
    visitor = _Resetting()
    for service in list(manager.values()):
        if manager.is_running(service.name()):
            service.lifecycle_hook.on_before_state_reset()
            service.accept_state_visitor(visitor)
            service.lifecycle_hook.on_after_state_reset()
    # Its provider is ours, and has no state that LocalStack knows of.
    _Resetting().visit(lookup("moto.elbv2.models", "elbv2_backends"))


class _Resetting:
    """A state visitor that empties what it is shown: stores, moto backends, folders."""

    def visit(self, state_container: Any) -> None:
        if isinstance(state_container, lookup("localstack.state.core", "AssetDirectory")):
            _empty(Path(state_container.path))
        elif isinstance(state_container, lookup("moto.core.base_backend", "BackendDict")):
            for account in list(state_container.values()):
                for backend in list(account.values()):
                    backend.reset()
        else:
            state_container.reset()


def _empty(directory: Path) -> None:
    if not directory.is_dir():
        return
    for path in sorted(itertools.chain(directory.rglob("*")), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
