"""Broken agents: what a pod is answered."""
# pyright: basic, reportPrivateImportUsage=false
# Stand-ins for private, typed seams: their types are the originals', and writing them again would hide the fault.

from __future__ import annotations

import json
import os
from dataclasses import replace

from podid_agent import (
    credentials,
    eks_auth,
    eks_auth_answer,
    http1_server,
)
from podid_agent.errors import CredentialsError, InvalidAnswerError
from podid_agent.http1_response import Response

from harness.subject.mutants.catalogue import SHARED_TEST, mutant, override


@mutant("agent-sessiontoken-key", "AGT-231", may_kill=dict.fromkeys(("AGT-230", "AGT-232"), SHARED_TEST))
def sessiontoken_key() -> None:
    """The token's key is SessionToken, as STS calls it."""

    def to_json(original):
        return lambda self: original(self).replace(b'"Token":', b'"SessionToken":')

    override(credentials.PodCredentials, "_to_json", to_json)


@mutant("agent-expiration-offset", "AGT-234", may_kill={"AGT-231": SHARED_TEST})
def expiration_offset() -> None:
    """Expiration ends in +00:00."""
    override(credentials, "_rfc3339", lambda original: lambda seconds: original(seconds).replace("Z", "+00:00"))


@mutant("agent-account-of-node", "AGT-233", may_kill={"AGT-231": SHARED_TEST})
def account_of_node() -> None:
    """AccountId is the node's account, whatever role was assumed."""

    def read_answer(original):
        return lambda *answer: replace(original(*answer), account_id="999999999999")

    override(eks_auth, "read_answer", read_answer)


@mutant(
    "agent-200-on-garbage",
    "AGT-237",
    "AGT-278",
    "AGT-279",
    "AGT-280",
    "AGT-281",
    "AGT-283",
    may_kill={
        "AGT-282": "times that are none are not noticed",
        "AGT-411": "what it made of nonsense is stored",
        "AGT-459": "nonsense counts as a renewal",
        "AGT-155": "its renewal test expects the old credentials",
        "AGT-713": "a success with a bad body is one",
        "AGT-722": "an endless body is one",
    },
    source="aws/eks-pod-identity-agent: an empty 2xx body is answered with 200 and empty keys",
)
def ok_on_garbage() -> None:
    """What cannot be read in a success becomes credentials with empty values."""

    def read_answer(original):
        def generously(*answer):
            try:
                return original(*answer)
            except InvalidAnswerError:
                return credentials.PodCredentials("", "", "", "", 4e9)

        return generously

    override(eks_auth, "read_answer", read_answer)


@mutant(
    "agent-dies-on-missing-field",
    "AGT-155",
    "AGT-156",
    "AGT-459",
    may_kill={
        "AGT-237": "a dead process answers nothing",
        "AGT-27*": "a dead process answers nothing",
        "AGT-28*": "a dead process answers nothing",
        "AGT-*": "after some restarts the shared agent stays dead",
    },
    source="aws/eks-pod-identity-agent: a 2xx without credentials is a nil pointer",
)
def dies_on_missing_field() -> None:
    """A success that lacks something ends the process."""

    def invalid(_original):
        return lambda _reason: os._exit(2)

    override(eks_auth_answer, "_invalid", invalid)


@mutant(
    "agent-json-errors",
    "AGT-240",
    may_kill={
        "AGT-2*": "tests of one error compare its whole text",
        "AGT-3*": "tests of one error compare its whole text",
        "AGT-*": "tests of one error compare its whole text",
    },
)
def json_errors() -> None:
    """Errors are JSON."""

    def encode(original):
        def as_json(response, request, *, close):
            if response.nosniff:
                body = json.dumps({"message": response.body.decode()}).encode()
                response = Response(response.status, body, "application/json")
            return original(response, request, close=close)

        return as_json

    override(http1_server, "encode_response", encode)


@mutant(
    "agent-status-flattened",
    "AGT-260",
    may_kill={
        "AGT-261": "tests of refusals compare status and text",
        "AGT-262": "tests of refusals compare status and text",
        "AGT-263": "tests of refusals compare status and text",
        "AGT-264": "tests of refusals compare status and text",
        "AGT-265": "tests of refusals compare status and text",
        "AGT-267": "the refusal has another status",
        "AGT-456": "the refusal after a dropped entry has another status",
        "AGT-457": "a 403 is not recognised",
        "AGT-*": "tests of refusals compare status and text",
    },
)
def status_flattened() -> None:
    """Every refusal of EKS Auth is a 500 for the pod."""

    def read_refusal(original):
        def flattened(*answer):
            error = original(*answer)
            error.status = 500
            return error

        return flattened

    override(eks_auth_answer, "_read_refusal", read_refusal)


@mutant(
    "agent-redirect-passed-on",
    "AGT-270",
    "AGT-271",
)
def redirect_passed_on() -> None:
    """A redirect of EKS Auth reaches the pod."""

    def read_answer(original):
        def passed_on(status, headers, body):
            if 300 <= status < 400:
                raise CredentialsError("moved", status=status)
            return original(status, headers, body)

        return passed_on

    override(eks_auth, "read_answer", read_answer)


@mutant(
    "agent-secrets-quoted", "AGT-249", may_kill=dict.fromkeys(("AGT-328", "AGT-661"), "refusals quote what was sent")
)
def secrets_quoted() -> None:
    """A refusal that quotes the token or the signature is passed on as it came."""
    override(CredentialsError, "hide", lambda _: lambda _self, *_secrets: None)
