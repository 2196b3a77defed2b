from harness.cloud.ports import Clock, CredentialStore
from harness.cloud.sigv4.request import Authenticated, RawRequest


def is_anonymous(request: RawRequest) -> bool:
    """Tell whether a request carries no signature of any kind, not even a broken or outdated one."""
    raise NotImplementedError


def verify(
    request: RawRequest, store: CredentialStore, clock: Clock, *, service: str, region: str | None
) -> Authenticated:
    raise NotImplementedError
