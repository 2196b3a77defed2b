"""Admission reviews: from the body of a request to the body of its answer, without I/O (section 3 of the contract)."""

from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from podid_webhook.jsontext import Json, JsonError, JsonObject, decode, encode
from podid_webhook.mutation import Mutation
from podid_webhook.pod import Pod, decode_pod
from podid_webhook.pod_schema import WrongTypeError, compiled


class Review(Struct, frozen=True, gc=False):
    """A review that could be read."""

    uid: str
    namespace: str
    pod: Pod
    type_meta: JsonObject
    """``apiVersion`` and ``kind`` as far as the request has them; the answer repeats them (WHK-105)."""

    def answer(self, mutation: Mutation | None) -> bytes:
        """Allow the pod, with the patch if it has one.

        Raises:
            RefusedReviewError: If the pod is nested too deeply to be sent back.
        """
        response: JsonObject = {"uid": self.uid, "allowed": True}
        if mutation is not None:
            try:
                patch = encode([*mutation.patch])
            except JsonError as error:
                raise RefusedReviewError(str(error), self.uid, self.type_meta) from error
            response |= {"patchType": "JSONPatch", "patch": patch}
        return encode({**self.type_meta, "response": response})


class RefusedReviewError(ValueError):
    """A review that cannot be read; it is answered with ``allowed: false``. Messages quote no content (WHK-871)."""

    def __init__(self, message: str, uid: str, type_meta: JsonObject) -> None:
        super().__init__(message)
        self._uid = uid
        self._type_meta = type_meta

    def answer(self) -> bytes:
        """Refuse, with the reason as ``status.message``."""
        response: JsonObject = {"uid": self._uid, "allowed": False, "status": {"message": str(self)}}
        return encode({**self._type_meta, "response": response})


_REQUEST: Any = msgspec.defstruct(
    "Request", [("uid", str | None, None), ("namespace", str | None, None), ("object", compiled("Pod"), None)], gc=False
)
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    msgspec.defstruct(
        "AdmissionReview",
        [("apiVersion", str | None, None), ("kind", str | None, None), ("request", _REQUEST | None, None)],
        gc=False,
    )
)


def decode_review(body: bytes) -> Review:
    """Read an AdmissionReview of ``admission.k8s.io/v1`` or ``v1beta1``; of the request only what the answer needs.

    Raises:
        RefusedReviewError: As WHK-107 to WHK-109 say.
    """
    try:
        review = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The judge of what does not fit the schema, which Go may take all the same.
        return _decode_exactly(body)
    request = review.request
    if request is None or request.object is None:
        return _decode_exactly(body)
    type_meta: JsonObject = {}
    if review.apiVersion is not None:
        type_meta["apiVersion"] = review.apiVersion
    if review.kind is not None:
        type_meta["kind"] = review.kind
    return Review(request.uid or "", request.namespace or "", decode_pod(request.object), type_meta)


def _decode_exactly(body: bytes) -> Review:
    if not body:
        raise RefusedReviewError("bad content", "", {})
    try:
        review = decode(body)
    except JsonError as error:
        raise RefusedReviewError(str(error), "", {}) from error
    # The API of Kubernetes decodes null into an empty object.
    if not isinstance(review := {} if review is None else review, dict):
        raise RefusedReviewError("not an AdmissionReview: expected a JSON object", "", {})
    type_meta: JsonObject = {key: review[key] for key in ("apiVersion", "kind") if review.get(key) is not None}
    if not all(isinstance(value, str) for value in type_meta.values()):
        raise RefusedReviewError("not an AdmissionReview: apiVersion and kind must be strings", "", {})
    request = review.get("request")
    if request is None:
        raise RefusedReviewError("bad content", "", type_meta)
    if not isinstance(request, dict):
        raise RefusedReviewError("not an AdmissionReview: request must be an object", "", type_meta)
    return _decode_request(request, type_meta)


def _decode_request(request: JsonObject, type_meta: JsonObject) -> Review:
    uid = _string(request.get("uid"))
    if uid is None:
        raise RefusedReviewError("not an AdmissionReview: request.uid must be a string", "", type_meta)

    def refuse(message: str) -> NoReturn:
        raise RefusedReviewError(message, uid, type_meta)

    namespace = _string(request.get("namespace"))
    if namespace is None:
        refuse("not an AdmissionReview: request.namespace must be a string")
    pod = request.get("object")
    if not isinstance(pod, dict):
        refuse("request.object must be a Pod object")
    try:
        return Review(uid, namespace, decode_pod(pod), type_meta)
    except WrongTypeError as error:
        refuse(f"request.object is no Pod: {error}")


def _string(value: Json) -> str | None:
    """Return the string, empty for null, or None for any other type."""
    if value is None:
        return ""
    return value if isinstance(value, str) else None
