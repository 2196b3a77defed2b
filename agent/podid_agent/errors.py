"""What a request for credentials can end in, apart from credentials.

::

    CredentialsError            carries the answer of the pod: status and body
    ├── RefusedError            EKS Auth refused, with a status and perhaps a code
    ├── UnreachableError        no answer from EKS Auth
    ├── InvalidAnswerError      an answer that is not one of the model
    ├── ExpiringError           credentials that end too soon to be of use
    └── CannotCallError         the call could not be built or signed
"""

from __future__ import annotations

__all__ = [
    "CannotCallError",
    "CredentialsError",
    "ExpiringError",
    "InvalidAnswerError",
    "RefusedError",
    "UnreachableError",
]


class CredentialsError(Exception):
    """No credentials; the text is the body of the answer."""

    def __init__(self, body: str, *, status: int = 500, code: str = "Unknown", outcome: str = "invalid") -> None:
        """Describe the failure.

        Args:
            body: What the pod is told.
            status: The status the pod gets, 400 to 599.
            code: The AWS code for metrics, ``Unknown`` without one.
            outcome: The outcome of the call for metrics and logs.
        """
        super().__init__(body)
        self.status = status
        self.code = code
        self.outcome = outcome

    def hide(self, *secrets: str | None) -> None:
        """Strike secrets out of the texts: AWS quotes signed headers, and a fake may quote anything (AGT-328)."""
        for secret in filter(None, secrets):
            self.args = (str(self).replace(secret, "***"),)
            self.code = self.code.replace(secret, "***")
            self.outcome = self.outcome.replace(secret, "***")


class RefusedError(CredentialsError):
    """EKS Auth refused (AGT-260 to AGT-266)."""

    def __init__(self, body: str, *, status: int, code: str, retryable: bool, throttled: bool) -> None:
        """Keep what a retry and a renewal decide by."""
        super().__init__(body, status=status, code=code, outcome=code)
        self.retryable = retryable
        self.throttled = throttled

    @property
    def is_about_the_pod(self) -> bool:
        """Whether the pod, its token or its association is refused for good (AGT-456).

        A 403 never is: it speaks about the agent's own credentials, whatever its code (AGT-457).
        """
        return self.status != 403 and self.code in {
            "AccessDeniedException",
            "ExpiredTokenException",
            "InvalidTokenException",
            "ResourceNotFoundException",
        }


class UnreachableError(CredentialsError):
    """No answer: no name, no connection, no bytes in time (AGT-268, AGT-269)."""

    def __init__(self, kind: str, reason: str, *, retryable: bool = True) -> None:
        """Name the kind of AGT-269 and a reason without URL or credentials."""
        timed_out = kind in {"ConnectTimeout", "RequestTimeout"}
        super().__init__(f"[]: ({kind}): {reason}, fault: unknown", outcome="timeout" if timed_out else "network")
        self.timed_out = timed_out
        self.retryable = retryable


class InvalidAnswerError(CredentialsError):
    """EKS Auth answered something that is not in its model (AGT-278 to AGT-283)."""


class ExpiringError(CredentialsError):
    """Fetched credentials that would never be served (AGT-277)."""


class CannotCallError(CredentialsError):
    """No region, or no credentials of the agent's own (AGT-275)."""
