"""S3 (``iam.md`` section 10)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

from harness.cloud.actions.model import Bucket, ParsedCall, Plan, PlannedCheck, Resources, StoredTags
from harness.cloud.documents import entries, members
from harness.cloud.iam.model import Check, ContextValue

# Sub-resources of buckets: reading and writing operations → action of each; deleting counts as writing.
_BUCKET_SUBRESOURCES = {
    "Acl": "BucketAcl",
    "Cors": "BucketCORS",
    "Encryption": "EncryptionConfiguration",
    "LifecycleConfiguration": "LifecycleConfiguration",
    "Logging": "BucketLogging",
    "NotificationConfiguration": "BucketNotification",
    "OwnershipControls": "BucketOwnershipControls",
    "Policy": "BucketPolicy",
    "Replication": "ReplicationConfiguration",
    "Tagging": "BucketTagging",
    "Versioning": "BucketVersioning",
    "Website": "BucketWebsite",
}
_ON_BUCKET = (
    {f"GetBucket{part}": f"Get{action}" for part, action in _BUCKET_SUBRESOURCES.items()}
    | {f"PutBucket{part}": f"Put{action}" for part, action in _BUCKET_SUBRESOURCES.items()}
    | {
        "DeleteBucket": "DeleteBucket",
        "DeleteBucketCors": "PutBucketCORS",
        "DeleteBucketEncryption": "PutEncryptionConfiguration",
        "DeleteBucketLifecycle": "PutLifecycleConfiguration",
        "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
        "DeleteBucketPolicy": "DeleteBucketPolicy",
        "DeleteBucketReplication": "PutReplicationConfiguration",
        "DeleteBucketTagging": "PutBucketTagging",
        "DeleteBucketWebsite": "DeleteBucketWebsite",
        "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
        "GetBucketLocation": "GetBucketLocation",
        "GetBucketPolicyStatus": "GetBucketPolicyStatus",
        "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
        "HeadBucket": "ListBucket",
        "ListMultipartUploads": "ListBucketMultipartUploads",
        "ListObjectVersions": "ListBucketVersions",
        "ListObjects": "ListBucket",
        "ListObjectsV2": "ListBucket",
        "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    }
)
_ON_OBJECT = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObject": "DeleteObject",
    "DeleteObjectTagging": "DeleteObjectTagging",
    "GetObject": "GetObject",
    "GetObjectAcl": "GetObjectAcl",
    "GetObjectAttributes": "GetObject",
    "GetObjectLegalHold": "GetObjectLegalHold",
    "GetObjectRetention": "GetObjectRetention",
    "GetObjectTagging": "GetObjectTagging",
    "HeadObject": "GetObject",
    "ListParts": "ListMultipartUploadParts",
    "PutObject": "PutObject",
    "PutObjectAcl": "PutObjectAcl",
    "PutObjectLegalHold": "PutObjectLegalHold",
    "PutObjectRetention": "PutObjectRetention",
    "PutObjectTagging": "PutObjectTagging",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}
_VERSIONED = {
    "DeleteObject": "DeleteObjectVersion",
    "DeleteObjectTagging": "DeleteObjectVersionTagging",
    "GetObject": "GetObjectVersion",
    "GetObjectAcl": "GetObjectVersionAcl",
    "GetObjectTagging": "GetObjectVersionTagging",
    "PutObjectAcl": "PutObjectVersionAcl",
    "PutObjectTagging": "PutObjectVersionTagging",
}
_KEYS = {
    "ACL": "s3:x-amz-acl",
    "CopySource": "s3:x-amz-copy-source",
    "GrantFullControl": "s3:x-amz-grant-full-control",
    "GrantRead": "s3:x-amz-grant-read",
    "GrantReadACP": "s3:x-amz-grant-read-acp",
    "GrantWrite": "s3:x-amz-grant-write",
    "GrantWriteACP": "s3:x-amz-grant-write-acp",
    "IfMatch": "s3:if-match",
    "IfNoneMatch": "s3:if-none-match",
    "MetadataDirective": "s3:x-amz-metadata-directive",
    "SSEKMSKeyId": "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "ServerSideEncryption": "s3:x-amz-server-side-encryption",
    "StorageClass": "s3:x-amz-storage-class",
    "VersionId": "s3:VersionId",
}
_LIST_KEYS = _KEYS | {"Prefix": "s3:prefix", "Delimiter": "s3:delimiter", "MaxKeys": "s3:max-keys"}
_LISTS = {"ListObjects", "ListObjectsV2", "ListObjectVersions"}
_READS = {"GetObject", "HeadObject", "GetObjectAttributes"}
_SEES_TAGS = re.compile(r"(Get|Put|Delete)Object(Version)?(Acl|Attributes|Tagging)|GetObject(Version)?")
"""Actions that policies may allow by the tags which the object has (``s3:ExistingObjectTag/*``)."""
_WRITES = {"PutObject", "CopyObject", "CreateMultipartUpload"}
_COPY_SOURCE = re.compile(r"/?(?P<bucket>[^/]+)/(?P<key>.+?)(\?versionId=(?P<version>.+))?", re.DOTALL)


def plan_s3(call: ParsedCall, resources: Resources) -> Plan | None:
    """Return the checks of an S3 call."""
    operation = call.operation
    if operation == "ListBuckets":
        return Plan((PlannedCheck(Check("s3:ListAllMyBuckets", f"arn:{call.partition}:s3:::*")),))
    if operation == "CreateBucket":
        return Plan(_create_bucket(call))
    if operation not in _ON_BUCKET and operation not in _ON_OBJECT and operation != "DeleteObjects":
        return None
    bucket = resources.bucket(call.text("Bucket"))
    if bucket is None:
        # Everybody with valid keys learns that a bucket does not exist (IAM-S3-07).
        return Plan() if call.caller.kind != "anonymous" else Plan((_on(call, None, "ListBucket"),))
    return _plan_in_bucket(call, bucket, resources)


def _plan_in_bucket(call: ParsedCall, bucket: Bucket, resources: Resources) -> Plan:
    operation = call.operation
    if operation == "DeleteObjects":
        return Plan(_delete_objects(call, bucket))
    if operation in _ON_BUCKET:
        return Plan((_on(call, bucket, _ON_BUCKET[operation], context=_context(call)),))
    listing = _on(call, bucket, "ListBucket") if operation in _READS else None
    return Plan(_object_checks(call, bucket, resources), if_object_is_missing=listing)


def _on(
    call: ParsedCall,
    bucket: Bucket | None,
    action: str,
    *,
    key: str | None = None,
    version: str = "",
    context: Mapping[str, ContextValue] | None = None,
    refused_alone: bool = False,
) -> PlannedCheck:
    name = bucket.name if bucket else call.text("Bucket")
    resource = f"arn:{call.partition}:s3:::{name}" + (f"/{key}" if key is not None else "")
    owner = bucket.account if bucket else ""
    keys: dict[str, ContextValue] = {**(context or {})}
    if owner:
        keys |= {"s3:ResourceAccount": owner, "aws:ResourceAccount": owner}
    check = Check(f"s3:{action}", resource, resource_account=owner, context=keys)
    policy = bucket.policy if bucket else None
    tags = StoredTags(("s3:ExistingObjectTag/",), version) if key and _SEES_TAGS.fullmatch(action) else None
    return PlannedCheck(check, resource_policy=policy, stored_tags=tags, key=key if refused_alone else None)


def _context(call: ParsedCall) -> dict[str, ContextValue]:
    names = _LIST_KEYS if call.operation in _LISTS else _KEYS
    given = {names.get(member): value for member, value in call.parameters.items() if value is not None}
    return {key: str(value) for key, value in given.items() if key}


def _create_bucket(call: ParsedCall) -> tuple[PlannedCheck, ...]:
    context = _context(call)
    configuration = members(call.parameters.get("CreateBucketConfiguration"))
    if location := configuration.get("LocationConstraint"):
        context["s3:locationconstraint"] = str(location)
    actions = ["CreateBucket"]
    if _has_acl(call):
        actions.append("PutBucketAcl")
    if call.parameters.get("ObjectOwnership"):
        actions.append("PutBucketOwnershipControls")
    return tuple(_on(call, None, action, context=context) for action in actions)


def _object_checks(call: ParsedCall, bucket: Bucket, resources: Resources) -> tuple[PlannedCheck, ...]:
    operation, key, context = call.operation, call.text("Key"), _context(call)
    action = _ON_OBJECT[operation]
    versioned = bool(call.text("VersionId"))
    actions = [_VERSIONED.get(action, action) if versioned else action]
    if operation == "GetObjectAttributes":
        actions.append("GetObjectVersionAttributes" if versioned else "GetObjectAttributes")
    if operation in _WRITES:
        actions += _write_extras(call)
    if operation in _WRITES or operation == "PutObjectTagging":
        context |= _request_object_tags(call)
    copied = _source_checks(call, resources)
    # Tags come along with what is copied, and need what tags need.
    if any(one.check.action.endswith("Tagging") for one in copied) and "PutObjectTagging" not in actions:
        actions.append("PutObjectTagging")
    version = call.text("VersionId")
    return tuple(_on(call, bucket, each, key=key, version=version, context=context) for each in actions) + copied


def _write_extras(call: ParsedCall) -> list[str]:
    extras = ["PutObjectTagging"] if call.parameters.get("Tagging") else []
    if _has_acl(call):
        extras.append("PutObjectAcl")
    if call.parameters.get("ObjectLockMode") or call.parameters.get("ObjectLockRetainUntilDate"):
        extras.append("PutObjectRetention")
    if call.parameters.get("ObjectLockLegalHoldStatus"):
        extras.append("PutObjectLegalHold")
    return extras


def _has_acl(call: ParsedCall) -> bool:
    return any(member == "ACL" or member.startswith("Grant") for member, value in call.parameters.items() if value)


def _request_object_tags(call: ParsedCall) -> dict[str, ContextValue]:
    """Return the keys of the tags in a request: a header of the writes, a document of PutObjectTagging."""
    listed = map(members, entries(members(call.parameters.get("Tagging")).get("TagSet")))
    tags = dict(parse_qsl(call.text("Tagging"), keep_blank_values=True))
    tags |= {str(tag.get("Key", "")): str(tag.get("Value", "")) for tag in listed}
    if not tags:
        return {}
    keys: dict[str, ContextValue] = {f"s3:RequestObjectTag/{key}": value for key, value in tags.items()}
    return keys | {"s3:RequestObjectTagKeys": tuple(tags)}


def _source_checks(call: ParsedCall, resources: Resources) -> tuple[PlannedCheck, ...]:
    """Return the right to read what is copied, with its tags; its bucket may be another account's."""
    source = call.parameters.get("CopySource")
    if not isinstance(source, str):
        return ()
    found = _COPY_SOURCE.fullmatch(source)
    if not found:
        return ()
    name, key = unquote(found["bucket"]), unquote(found["key"])
    bucket = resources.bucket(name) or Bucket(name, call.account, None)
    version = found["version"] or ""
    actions = ["GetObjectVersion" if version else "GetObject"]
    comes_with_tags = call.operation == "CopyObject" and call.text("TaggingDirective") != "REPLACE"
    if comes_with_tags and resources.tags(f"arn:{call.partition}:s3:::{name}/{key}", version):
        actions.append("GetObjectVersionTagging" if version else "GetObjectTagging")
    return tuple(_on(call, bucket, action, key=key, version=version) for action in actions)


def _delete_objects(call: ParsedCall, bucket: Bucket) -> tuple[PlannedCheck, ...]:
    objects = map(members, entries(members(call.parameters.get("Delete")).get("Objects")))
    return tuple(
        _on(
            call,
            bucket,
            "DeleteObjectVersion" if entry.get("VersionId") else "DeleteObject",
            key=str(entry.get("Key", "")),
            refused_alone=True,
        )
        for entry in objects
    )
