"""A secret that is planted in every run, and that no artifact may have (:mod:`harness.conformance.search`).

The redactor does not know the canary: it must vanish because of where it stands, as every real secret must. It is
planted inside credentials of every kind that the run writes down (see :func:`specimen`), and in the process's
environment for whoever dumps that.
"""

from __future__ import annotations

import base64
import secrets
import string
from typing import Any

__all__ = ["VARIABLE", "new", "specimen"]

VARIABLE = "PODID_CANARY"
"""Environment variable of the harness that holds the canary while a run lasts."""
_LETTERS = string.ascii_letters + string.digits


def new() -> str:
    """Return a canary for one run."""
    return "PODIDCANARY" + "".join(secrets.choice(_LETTERS) for _ in range(40))


def specimen(canary: str) -> dict[str, Any]:
    """Return credentials of every kind with the canary inside, as they would come along in evidence.

    Their redacted form stands in every run's record: a reader sees what was done to each.
    """
    payload = base64.urlsafe_b64encode(b'{"aud":["pods.eks.amazonaws.com"],"sub":"system:serviceaccount:a:b"}')
    token = f"eyJhbGciOiJSUzI1NiJ9.{payload.decode().rstrip('=')}.{canary}"
    signature = canary.encode().hex()[:64]
    return {
        "http request": f"GET /v1/credentials HTTP/1.1\r\nAuthorization: {token}\r\n",
        "http response": f'{{"SecretAccessKey":"{canary}","Token":"IQoJ{canary}"}}',
        "environment": f"AWS_SECRET_ACCESS_KEY={canary}\nAWS_SESSION_TOKEN={canary}\n",
        "presigned": f"https://b.s3.amazonaws.com/k?X-Amz-Security-Token={canary}&X-Amz-Signature={signature}",
        "data": {"SecretAccessKey": canary, "SessionToken": canary, "SecretString": canary},
        "secret": {"kind": "Secret", "metadata": {"name": "canary"}, "stringData": {"key": canary}},
        "private key": f"-----BEGIN PRIVATE KEY-----\n{canary}\n-----END PRIVATE KEY-----",
        "bearer": f"Authorization: Bearer {canary}",
    }
