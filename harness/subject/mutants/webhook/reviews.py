"""Broken webhooks: admission reviews and their answers."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

import json

from msgspec.structs import replace
from podid_webhook import review, server
from podid_webhook.http1 import Response
from podid_webhook.review import RefusedReviewError, Review
from podid_webhook.server import ReviewServer

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


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

    def decode_review(original):
        def of_object(body):
            the_review = original(body)
            metadata = json.loads(body)["request"]["object"].get("metadata") or {}
            return replace(the_review, namespace=metadata.get("namespace") or the_review.namespace)

        return of_object

    override(server, "decode_review", decode_review)


@mutant("webhook-default-account", "WHK-116", may_kill={"WHK-709": "a pod without an account has one"})
def default_account() -> None:
    """A pod that names no ServiceAccount is taken for one of ``default``."""

    def decode_pod(original):
        def named(value):
            pod = original(value)
            return replace(pod, service_account=pod.service_account or "default")

        return named

    override(review, "decode_pod", decode_pod)


@mutant("webhook-fault-denied", "WHK-114")
def fault_denied() -> None:
    """A fault inside denies the pod, whatever the failure policy."""

    def failed(original):
        def denied(self, error):
            if isinstance(error, RefusedReviewError):
                return original(self, error)
            return Response(200, RefusedReviewError("internal error", "", {}).answer(), "application/json")

        return denied

    override(ReviewServer, "_failed", failed)
