"""The emulator's process: how it is started, and when it is ready. Whoever starts it, also supervises and stops it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from harness import limits, wait
from harness.cloud.localstack.bootstrap import AccessKey, Bootstrap
from harness.cloud.localstack.control import Control
from harness.cloud.localstack.environment import Environment
from harness.errors import HarnessFault
from harness.limits import Limit

__all__ = ["LOCAL_LISTEN", "start_command", "variables", "wait_until_ready"]

LOCAL_LISTEN = "127.0.0.1:4566"
SERVICES = (
    "cloudtrail",
    "dynamodb",
    "ec2",
    "eks",
    "eks-auth",
    "elbv2",
    "iam",
    "kms",
    "s3",
    "secretsmanager",
    "shield",
    "ssm",
    "sts",
    "waf-regional",
    "wafv2",
)
_EXPECTED = dict.fromkeys(SERVICES, "default") | {"dynamodb": "podid", "sts": "podid"}
_VERSION = "4.14.0"


def start_command(
    environment: Environment,
    *,
    listen: Sequence[str],
    certificate: Path,
    state_directory: Path,
    bootstrap_file: Path,
    imds_listen: str = "",
    publication_delay: float = 0,
    auth_delay: float = 0,
    event_delay: float = 0,
) -> tuple[list[str], dict[str, str]]:
    """Return command and complete environment of the process, which stays in the foreground until SIGTERM.

    The state directory is created; the other arguments are those of :func:`variables`.

    Args:
        environment: LocalStack's Python environment.
        listen: See there.
        certificate: See there.
        state_directory: See there.
        bootstrap_file: See there.
        imds_listen: See there.
        publication_delay: See there.
        auth_delay: See there.
        event_delay: See there.
    """
    complete = variables(
        listen=listen,
        certificate=certificate,
        state_directory=state_directory,
        bootstrap_file=bootstrap_file,
        imds_listen=imds_listen,
        publication_delay=publication_delay,
        auth_delay=auth_delay,
        event_delay=event_delay,
    )
    Path(complete["TMPDIR"]).mkdir(mode=0o700, parents=True, exist_ok=True)
    return [str(environment.python), "-m", "harness.cloud.localstack.serve"], complete


def variables(
    *,
    listen: Sequence[str],
    certificate: Path,
    state_directory: Path,
    bootstrap_file: Path,
    imds_listen: str = "",
    publication_delay: float = 0,
    auth_delay: float = 0,
    event_delay: float = 0,
) -> dict[str, str]:
    """Return the complete environment of the process; paths are as the process sees them.

    Args:
        listen: ``address:port`` each; HTTP and TLS share all of them. ``127.0.0.1:4566`` is added in front unless the
            first is one of 127.0.0.1: LocalStack watches that one to see that it is up.
        certificate: PEM with key, certificate and chain; its directory must be writable.
        state_directory: Directory for everything it writes, with ``tmp`` in it.
        bootstrap_file: From :meth:`Bootstrap.write`.
        imds_listen: ``address:port`` of the metadata service; none when empty.
        publication_delay: Seconds until admission learns of a change of associations.
        auth_delay: Seconds until EKS Auth acts on such a change.
        event_delay: Seconds until CloudTrail shows an event.
    """
    addresses = list(listen) if listen and listen[0].startswith("127.0.0.1:") else [LOCAL_LISTEN, *listen]
    return {
        "CUSTOM_SSL_CERT_PATH": str(certificate),
        "DISABLE_EVENTS": "1",
        "DNS_ADDRESS": "0",
        # The probes below load every service but EC2 and those about load balancers: their models take a quarter of the
        # start, and few scenarios call them.
        "EAGER_SERVICE_LOADING": "0",
        "FILESYSTEM_ROOT": str(state_directory / "localstack"),
        "GATEWAY_LISTEN": ",".join(addresses),
        "GATEWAY_WORKER_COUNT": "64",
        "HOME": str(state_directory),
        "LANG": "C.UTF-8",
        "LOCALSTACK_RESPONSE_HEADER_ENABLED": "0",
        "PARITY_AWS_ACCESS_KEY_ID": "1",
        "PATH": os.defpath,
        "PODID_AUTH_DELAY": str(auth_delay),
        "PODID_BOOTSTRAP_FILE": str(bootstrap_file),
        "PODID_EVENT_DELAY": str(event_delay),
        "PODID_IMDS_LISTEN": imds_listen,
        "PODID_PUBLICATION_DELAY": str(publication_delay),
        # As shipped it runs Amazon's own program, which needs Java.
        "PROVIDER_OVERRIDE_DYNAMODB": "podid",
        "PROVIDER_OVERRIDE_STS": "podid",
        "PYTHONUNBUFFERED": "1",
        "SERVICES": ",".join(SERVICES),
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "TMPDIR": str(state_directory / "tmp"),
        "TZ": "UTC",
    }


def wait_until_ready(
    endpoint: str,
    bootstrap: Bootstrap,
    *,
    region: str = "eu-west-1",
    timeout: Limit = limits.EMULATOR_READY,
    stopped: Callable[[], str | None] = lambda: None,
) -> None:
    """Wait until every service answers a signed call and refuses an unsigned one (EMU-BASE-READY).

    Args:
        endpoint: URL of the emulator.
        bootstrap: The secrets it was started with.
        region: Region to call in.
        timeout: How long.
        stopped: Returns a reason when the process is gone, else None.

    Raises:
        HarnessFault: It did not become ready, ended, or a service is served by something else.
    """
    control = Control(endpoint, bootstrap.control_token)

    def readiness() -> Mapping[str, Any]:
        if reason := stopped():
            return {"stopped": reason}
        return control.ready()

    ready = wait.until(
        readiness,
        what=f"the AWS emulator at {endpoint}",
        timeout=timeout,
        stop=lambda seen: str(seen["stopped"]) if "stopped" in seen else None,
        transient=(HarnessFault,),
        hint="see LocalStack's log",
    )
    if ready["version"] != _VERSION:
        raise HarnessFault(f"the AWS emulator is LocalStack {ready['version']}, not {_VERSION}")
    served = {api: ready["providers"].get(api) for api in _EXPECTED}
    if served != _EXPECTED:
        raise HarnessFault(f"AWS services are served by {served}, not by {_EXPECTED}")
    for account in bootstrap.accounts:
        _probe(endpoint, account.administrator, region)
    _probe_unsigned(endpoint)


def _probe(endpoint: str, key: AccessKey, region: str) -> None:
    """Make one signed call to each service but EC2 and load balancing; a refusal with the right code counts."""
    session = _session(key, region)
    calls: Mapping[str, Callable[[Any], Any]] = {
        "cloudtrail": lambda client: client.lookup_events(MaxResults=1),
        "eks": lambda client: client.list_clusters(),
        "eks-auth": lambda client: client.assume_role_for_pod_identity(clusterName="no-such-cluster", token="a.b.c"),  # noqa: S106 - no secret
        "iam": lambda client: client.get_user(),
        "s3": lambda client: client.list_buckets(),
        "secretsmanager": lambda client: client.list_secrets(),
        "ssm": lambda client: client.describe_parameters(),
        "sts": lambda client: client.get_caller_identity(),
    }
    configuration = Config(retries={"total_max_attempts": 1}, read_timeout=30)
    for service, call in calls.items():
        client: Any = cast("Any", session).client(service, endpoint_url=endpoint, config=configuration)
        try:
            call(client)
        except ClientError as error:
            if service == "eks-auth" and _code(error) == "ResourceNotFoundException":
                continue
            raise HarnessFault(f"the AWS emulator is up, but {service} is not: {error}") from error
        except BotoCoreError as error:
            raise HarnessFault(f"the AWS emulator is up, but {service} is not: {error}") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code"))


def _session(key: AccessKey, region: str) -> boto3.Session:
    """Return a session that knows nothing but these keys: no profile, file or bundle of the environment."""
    variables: dict[str, Any] = dict.fromkeys(("profile", "ca_bundle"), (None, None, None, None))
    variables |= dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    core = botocore.session.Session(session_vars=variables)
    return boto3.Session(key.access_key_id, key.secret_access_key, region_name=region, botocore_session=core)


def _probe_unsigned(endpoint: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{endpoint.rstrip('/')}/some-bucket?list-type=2", timeout=30):
            pass
    except urllib.error.HTTPError as error:
        if error.code == 403:
            return
        raise HarnessFault(f"the AWS emulator answers an unsigned request with {error.code}") from error
    raise HarnessFault("the AWS emulator serves unsigned requests")
