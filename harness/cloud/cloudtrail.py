"""CloudTrail: what is recorded of a call, and LookupEvents over it (``eks-api.md`` section 8)."""

from __future__ import annotations

import json
import string
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from harness.cloud.documents import entries, is_mapping, members
from harness.cloud.paging import InvalidTokenError, Pager
from harness.cloud.ports import Clock, Credential, Ids, Principal, Refusal
from harness.cloud.sts import AssumedRole, AssumeRoleRequest

__all__ = ["ApiCall", "CloudTrail", "Failure", "is_data_event", "is_read_only", "redacted"]

HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
_ATTRIBUTES = {
    "EventId",
    "EventName",
    "ReadOnly",
    "Username",
    "ResourceType",
    "ResourceName",
    "EventSource",
    "AccessKeyId",
}
_KEPT = timedelta(days=90)
_CAPACITY = 200_000
"""Events kept; a lab makes a few per second, and the oldest go first."""

_SECRET_MEMBERS = {
    "password",
    "newpassword",
    "oldpassword",
    "privatekey",
    "secretaccesskey",
    "secretbinary",
    "secretstring",
    "secretvalue",
    "sessiontoken",
    "token",
    "webidentitytoken",
}
_NO_SECRETS = {"nexttoken", "clientrequesttoken"}
_READING = ("Get", "List", "Describe", "Lookup", "Head", "BatchGet", "Search", "AssumeRole", "Decode")
_DYNAMODB_DATA = frozenset(f"{verb}Item" for verb in ("BatchGet", "BatchWrite", "Delete", "Get", "Put", "Update")) | {
    "Query",
    "Scan",
    "TransactGetItems",
    "TransactWriteItems",
}
_S3_DATA = {"ListObjects", "ListObjectsV2", "ListObjectVersions", "ListMultipartUploads", "DeleteObjects"}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call was refused."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A call as CloudTrail sees it."""

    source: str
    """``eks.amazonaws.com``."""
    name: str
    caller: Credential
    region: str
    at: datetime
    request_id: str
    parameters: Mapping[str, Any]
    response: Mapping[str, Any] | None
    """None for reading and for refused calls."""
    failure: Failure | None
    read_only: bool
    source_address: str
    user_agent: str
    host: str
    resources: tuple[tuple[str, str], ...] = ()
    """(type, name) pairs."""
    is_tls: bool = True


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    account: str
    region: str
    at: datetime
    username: str
    access_key_id: str
    resources: tuple[tuple[str, str], ...]
    event_id: str
    name: str
    source: str
    read_only: str
    record: str
    """JSON: an event must never change with the objects it was made of, nor fail when it is read."""

    @property
    def order(self) -> str:
        """Sorts newest first."""
        return f"{10**15 - self.number:016d}"

    def values(self, attribute: str) -> set[str]:
        return {
            "EventId": {self.event_id},
            "EventName": {self.name},
            "ReadOnly": {self.read_only},
            "Username": {self.username},
            "ResourceType": {kind for kind, _ in self.resources},
            "ResourceName": {name for _, name in self.resources},
            "EventSource": {self.source},
            "AccessKeyId": {self.access_key_id},
        }[attribute]

    def envelope(self) -> dict[str, Any]:
        optional = {"AccessKeyId": self.access_key_id, "Username": self.username}
        return {name: value for name, value in optional.items() if value} | {
            "EventId": self.event_id,
            "EventName": self.name,
            "ReadOnly": self.read_only,
            "EventTime": self.at,
            "EventSource": self.source,
            "Resources": [{"ResourceType": kind, "ResourceName": name} for kind, name in self.resources],
            "CloudTrailEvent": self.record,
        }


class CloudTrail:
    """Events of all accounts and regions, newest last; safe for use by several threads."""

    def __init__(self, clock: Clock, ids: Ids, *, delay: float = 0, lookups_per_second: int = 0) -> None:
        """Begin without events.

        Args:
            clock: The lab's time.
            ids: Source of event ids.
            delay: Seconds until an event can be looked up (API-807).
            lookups_per_second: More of an account and region are refused; 0: any number is answered.
        """
        self._clock = clock
        self._ids = ids
        self._delay = timedelta(seconds=delay)
        self._lookups_per_second = lookups_per_second
        self._lookups: dict[tuple[str, str], deque[datetime]] = {}
        self._pager = Pager(ids.letters(32, string.ascii_letters))
        self._lock = threading.Lock()
        self._events: deque[_Event] = deque(maxlen=_CAPACITY)
        self._number = 0

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._events.clear()

    # --- recording --------------------------------------------------------------------------------------------------

    def record_call(self, call: ApiCall) -> None:
        """Record an API call of an account's own principal."""
        principal = call.caller.principal
        record = self._record(
            version="1.09",
            source=call.source,
            name=call.name,
            at=call.at,
            region=call.region,
            account=principal.account,
            identity=user_identity(call.caller),
            address=call.source_address,
            agent=call.user_agent,
            parameters=redacted(call.parameters) or None,
            response=redacted(call.response) if call.response else None,
            request_id=call.request_id,
            read_only=call.read_only,
        )
        if call.failure:
            record |= {"errorCode": call.failure.code, "errorMessage": call.failure.message}
        if call.is_tls:
            record["tlsDetails"] = {"tlsVersion": "TLSv1.3", "clientProvidedHostHeader": call.host}
        self._add(
            record,
            account=principal.account,
            at=call.at,
            username=_username(call.caller),
            access_key_id=call.caller.access_key_id,
            resources=call.resources,
        )

    def record_service_assume_role(self, assumed: AssumedRole, service: str, region: str) -> None:
        """Record STS's AssumeRole by a service: record B, with role, session name and tags (API-813)."""
        credential, request = assumed.credential, assumed.request
        parameters: dict[str, Any] = {
            "roleArn": request.role_arn,
            "roleSessionName": request.role_session_name,
            "durationSeconds": assumed.duration_seconds,
        }
        if request.tags:
            parameters["tags"] = [{"key": key, "value": value} for key, value in request.tags]
            parameters["transitiveTagKeys"] = list(request.transitive_tag_keys)
        self._add_assume_role(
            assumed,
            account=credential.principal.account,
            region=region,
            identity={"type": "AWSService", "invokedBy": service},
            address=service,
            parameters=parameters,
            username="",
            access_key_id="",
            shared_event_id=self._ids.uuid(),
        )

    def record_chained_assume_role(self, assumed: AssumedRole, caller: Credential, service: str, region: str) -> None:
        """Record STS's AssumeRole of a target role: record C, in both accounts if there are two.

        The target's learns of the caller whose account it is and what its ID is, and nothing else (IAM User Guide,
        Logging IAM and AWS STS API calls).
        """
        parameters = _chained_parameters(assumed.request, assumed.duration_seconds, assumed.inherited_tags)
        shared = self._ids.uuid()
        # A dict keeps the order and drops the second of two equal accounts.
        own = caller.principal.account
        for account in dict.fromkeys((own, assumed.credential.principal.account)):
            is_own = account == own
            identity = user_identity(caller) if is_own else _of_another_account(caller)
            self._add_assume_role(
                assumed,
                account=account,
                region=region,
                identity=identity | {"invokedBy": service},
                address=service,
                parameters=parameters,
                username=_username(caller) if is_own else "",
                access_key_id=caller.access_key_id if is_own else "",
                shared_event_id=shared,
            )

    def record_refused_target(
        self, request: AssumeRoleRequest, caller: Credential, failure: Failure, service: str, region: str
    ) -> None:
        """Record that STS refused the target role: like record C, in the caller's account only."""
        now = self._clock.now()
        record = self._record(
            version="1.08",
            source="sts.amazonaws.com",
            name="AssumeRole",
            at=now,
            region=region,
            account=caller.principal.account,
            identity=user_identity(caller) | {"invokedBy": service},
            address=service,
            agent=service,
            parameters=_chained_parameters(request, request.duration_seconds, caller.transitive_tags),
            response=None,
            request_id=self._ids.uuid(),
            read_only=True,
        )
        record |= {"errorCode": failure.code, "errorMessage": failure.message}
        self._add(
            record,
            account=caller.principal.account,
            at=now,
            username=_username(caller),
            access_key_id=caller.access_key_id,
            resources=(("AWS::IAM::Role", request.role_arn),),
        )

    def _add_assume_role(
        self,
        assumed: AssumedRole,
        *,
        account: str,
        region: str,
        identity: Mapping[str, Any],
        address: str,
        parameters: Mapping[str, Any],
        username: str,
        access_key_id: str,
        shared_event_id: str,
    ) -> None:
        credential = assumed.credential
        principal = credential.principal
        response: dict[str, Any] = {
            "credentials": {
                "accessKeyId": credential.access_key_id,
                "sessionToken": HIDDEN,
                "expiration": _spelled_out(credential.expires_at),
            },
            "assumedRoleUser": {"assumedRoleId": principal.user_id, "arn": principal.arn},
        }
        if assumed.packed_policy_size is not None:
            response["packedPolicySize"] = assumed.packed_policy_size
        record = self._record(
            version="1.08",
            source="sts.amazonaws.com",
            name="AssumeRole",
            at=credential.issued_at,
            region=region,
            account=account,
            identity=identity,
            address=address,
            agent=address,
            parameters=parameters,
            response=response,
            request_id=self._ids.uuid(),
            read_only=True,
        )
        record["resources"] = [
            {"accountId": principal.account, "type": "AWS::IAM::Role", "ARN": assumed.request.role_arn}
        ]
        record["sharedEventID"] = shared_event_id
        resources = (
            ("AWS::IAM::AccessKey", credential.access_key_id),
            ("AWS::STS::AssumedRole", principal.arn),
            ("AWS::IAM::Role", assumed.request.role_arn),
        )
        self._add(
            record,
            account=account,
            at=credential.issued_at,
            username=username,
            access_key_id=access_key_id,
            resources=resources,
        )

    def _record(
        self,
        *,
        version: str,
        source: str,
        name: str,
        at: datetime,
        region: str,
        account: str,
        identity: Mapping[str, Any],
        address: str,
        agent: str,
        parameters: Mapping[str, Any] | None,
        response: Any,
        request_id: str,
        read_only: bool,
    ) -> dict[str, Any]:
        return {
            "eventVersion": version,
            "userIdentity": identity,
            "eventTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "eventSource": source,
            "eventName": name,
            "awsRegion": region,
            "sourceIPAddress": address,
            "userAgent": agent,
            "requestParameters": parameters,
            "responseElements": response,
            "requestID": request_id,
            "eventID": self._ids.uuid(),
            "readOnly": read_only,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": account,
            "eventCategory": "Management",
        }

    def _add(
        self,
        record: Mapping[str, Any],
        *,
        account: str,
        at: datetime,
        username: str,
        access_key_id: str,
        resources: tuple[tuple[str, str], ...],
    ) -> None:
        text = json.dumps(record, default=_plain, separators=(",", ":"))
        with self._lock:
            self._number += 1
            self._events.append(
                _Event(
                    number=self._number,
                    account=account,
                    region=str(record["awsRegion"]),
                    at=at,
                    username=username,
                    access_key_id=access_key_id,
                    resources=resources,
                    event_id=str(record["eventID"]),
                    name=str(record["eventName"]),
                    source=str(record["eventSource"]),
                    read_only=_flag(record["readOnly"]),
                    record=text,
                )
            )

    # --- LookupEvents -----------------------------------------------------------------------------------------------

    def lookup(self, account: str, region: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer LookupEvents.

        Raises:
            Refusal: Parameters that CloudTrail does not take (API-806).
        """
        self._count_lookup(account, region)
        attribute = _attribute(request)
        size = request.get("MaxResults", 50)
        if not isinstance(size, int) or not 1 <= size <= 50:
            raise _bad("InvalidMaxResultsException", "MaxResults must be between 1 and 50.")
        start, end = request.get("StartTime"), request.get("EndTime")
        if start and end and start > end:
            raise _bad("InvalidTimeRangeException", "StartTime must not be after EndTime.")
        if request.get("EventCategory") not in {None, "insight"}:
            raise _bad("InvalidEventCategoryException", "EventCategory must be insight.")
        found = [] if request.get("EventCategory") else self._matching(account, region, attribute, start, end)
        try:
            page, token = self._pager.page(
                found,
                lambda event: event.order,
                query=json.dumps([account, region, attribute, start, end], default=_plain),
                size=size,
                token=request.get("NextToken"),
            )
        except InvalidTokenError as error:
            raise _bad("InvalidNextTokenException", "The NextToken is not valid for these parameters.") from error
        return {"Events": [event.envelope() for event in page]} | ({"NextToken": token} if token else {})

    def _count_lookup(self, account: str, region: str) -> None:
        if not self._lookups_per_second:
            return
        now = self._clock.now()
        with self._lock:
            latest = self._lookups.setdefault((account, region), deque(maxlen=self._lookups_per_second))
            is_too_soon = len(latest) == self._lookups_per_second and now - latest[0] < timedelta(seconds=1)
            if not is_too_soon:
                latest.append(now)
        if is_too_soon:
            raise _bad("ThrottlingException", "Rate exceeded")

    def _matching(
        self,
        account: str,
        region: str,
        attribute: tuple[str, str] | None,
        start: datetime | None,
        end: datetime | None,
    ) -> list[_Event]:
        now = self._clock.now()
        with self._lock:
            events = list(self._events)
        return [
            event
            for event in reversed(events)
            if (event.account, event.region) == (account, region)
            and now - _KEPT <= event.at <= now - self._delay
            and (start is None or event.at >= start)
            and (end is None or event.at <= end)
            and (attribute is None or attribute[1] in event.values(attribute[0]))
        ]


def _attribute(request: Mapping[str, Any]) -> tuple[str, str] | None:
    attributes: Sequence[Mapping[str, Any]] = request.get("LookupAttributes") or []
    if not attributes:
        return None
    if len(attributes) > 1:
        raise _bad("InvalidLookupAttributesException", "You can specify only one lookup attribute.")
    key, value = attributes[0].get("AttributeKey"), attributes[0].get("AttributeValue")
    if key not in _ATTRIBUTES or not isinstance(value, str):
        raise _bad("InvalidLookupAttributesException", f"The lookup attribute {key} is not valid.")
    return key, value


def _bad(code: str, message: str) -> Refusal:
    return Refusal(code, message, 400)


# --- parts of records -----------------------------------------------------------------------------------------------


def user_identity(credential: Credential) -> dict[str, Any]:
    """Return ``userIdentity`` of the holder of a credential."""
    principal = credential.principal
    identity: dict[str, Any] = {
        "type": {"root": "Root", "user": "IAMUser"}.get(principal.kind, "AssumedRole"),
        "principalId": principal.user_id,
        "arn": principal.arn,
        "accountId": principal.account,
        "accessKeyId": credential.access_key_id,
    }
    if principal.kind == "user":
        identity["userName"] = principal.arn.rpartition("/")[2]
    if principal.role_arn:
        identity["sessionContext"] = _session_context(credential, principal)
    return identity


def _of_another_account(credential: Credential) -> dict[str, Any]:
    """Return ``userIdentity`` as an account sees the holder of another one's credential."""
    principal = credential.principal
    return {"type": "AWSAccount", "principalId": principal.user_id, "accountId": principal.account}


def _chained_parameters(
    request: AssumeRoleRequest, seconds: int | None, inherited: Mapping[str, str]
) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "roleArn": request.role_arn,
        "roleSessionName": request.role_session_name,
        "externalId": request.external_id,
        "durationSeconds": seconds,
    }
    return parameters | ({"incomingTransitiveTags": dict(inherited)} if inherited else {})


def _session_context(credential: Credential, principal: Principal) -> dict[str, Any]:
    context: dict[str, Any] = {
        "sessionIssuer": {
            "type": "Role",
            "principalId": principal.user_id.partition(":")[0],
            "arn": principal.role_arn,
            "accountId": principal.account,
            "userName": principal.role_arn.rpartition("/")[2],
        },
        "attributes": {
            "creationDate": credential.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "mfaAuthenticated": "false",
        },
    }
    return context | ({"ec2RoleDelivery": "2.0"} if credential.origin == "imds" else {})


def _username(credential: Credential) -> str:
    principal = credential.principal
    if principal.kind == "root":
        return "root"
    return principal.arn.rpartition("/")[2]


def is_read_only(operation: str) -> bool:
    """Tell whether an operation only reads, as CloudTrail counts it; AssumeRole does."""
    return operation.startswith(_READING)


def is_data_event(service: str, operation: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether a call is a data event, which LookupEvents never shows (API-808)."""
    if service == "dynamodb":
        return operation in _DYNAMODB_DATA
    return service == "s3" and (operation in _S3_DATA or "Key" in parameters)


def redacted(value: Any) -> Any:
    """Return parameters or results with AWS's first letter in lower case, without secrets and streams (API-810)."""
    if is_mapping(value):
        return {_lower_first(name): _hidden(name, item) for name, item in members(value).items() if item is not None}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in entries(cast("Any", value))]
    return value if isinstance(value, str | int | float | bool | datetime | None) else None


def _hidden(name: str, value: Any) -> Any:
    key = name.lower()
    return HIDDEN if key in _SECRET_MEMBERS and key not in _NO_SECRETS else redacted(value)


def _lower_first(name: str) -> str:
    return name[:1].lower() + name[1:]


def _spelled_out(moment: datetime | None) -> str:
    """Return a time as CloudTrail prints expirations: ``Dec 13, 2023, 7:14:20 AM``."""
    if moment is None:
        return ""
    return f"{moment:%b} {moment.day}, {moment.year}, {moment.hour % 12 or 12}:{moment:%M:%S} {moment:%p}"


def _plain(value: Any) -> str:
    return _spelled_out(value) if isinstance(value, datetime) else str(value)


def _flag(value: Any) -> str:
    return "true" if value else "false"
