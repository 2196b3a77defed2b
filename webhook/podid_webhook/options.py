"""The command line: upstream's flags with upstream's defaults, ours added (section 10.4 of the contract)."""

import argparse
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from podid_webhook import __version__
from podid_webhook.configuration import MIN_TOKEN_EXPIRATION, NamespacedName, Settings
from podid_webhook.goparse import parse_bool, parse_duration, parse_int64
from podid_webhook.tls import CIPHER_SUITES, MIN_VERSIONS, TLS13_CIPHER_SUITES, TlsPolicy

_KLOG_FLAGS = ("add_dir_header", "alsologtostderr", "logtostderr", "one_output", "skip_headers", "skip_log_headers")
_KLOG_VALUES = ("log_backtrace_at", "log_dir", "log_file", "log_file_max_size", "stderrthreshold", "vmodule")

_BOOLEANS = frozenset(
    {
        "--in-cluster",
        "--sts-regional-endpoint",
        "--watch-config-map",
        "--compose-role-arn",
        "--enable-debugging-handlers",
        "--version",
        *(f"--{name}" for name in _KLOG_FLAGS),
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """A parsed command line."""

    settings: Settings
    port: int
    metrics_port: int
    kubeconfig: str
    kube_api: str
    namespace: str
    service_name: str
    tls_cert: Path
    tls_key: Path
    tls_policy: TlsPolicy
    watch_config_map: bool
    compose_role_arn: bool
    identities_file: Path | None
    identities_config_map: NamespacedName | None
    lookup_grace_period: float
    debugging_handlers: bool
    verbosity: int


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse the command line as pflag would.

    Raises:
        SystemExit: With 2 and a message that names the flag, if something is wrong; with 0 after ``--version``.
    """
    parser = _parser()
    flags = parser.parse_args([f"{text}=true" if text in _BOOLEANS else text for text in arguments])
    if flags.version:
        print(__version__)
        raise SystemExit(0)
    if flags.in_cluster:
        parser.error(
            "--in-cluster: Kubernetes no longer signs certificates for kubernetes.io/legacy-unknown; create one with"
            " amazon-eks-pod-identity-webhook-certs or cert-manager, and name it with --tls-cert and --tls-key"
        )
    identities = flags.watch_container_credentials_config
    if identities and not Path(identities).is_absolute():
        parser.error(f"--watch-container-credentials-config: {identities!r} is not an absolute path")
    return Options(
        settings=_settings(flags),
        port=flags.port,
        metrics_port=flags.metrics_port,
        kubeconfig=flags.kubeconfig,
        kube_api=flags.kube_api,
        namespace=flags.namespace,
        service_name=flags.service_name,
        tls_cert=Path(flags.tls_cert),
        tls_key=Path(flags.tls_key),
        tls_policy=TlsPolicy(flags.tls_min_version, flags.tls_cipher_suites),
        watch_config_map=flags.watch_config_map,
        compose_role_arn=flags.compose_role_arn,
        identities_file=Path(identities) if identities else None,
        identities_config_map=flags.watch_container_credentials_config_map,
        lookup_grace_period=flags.service_account_lookup_grace_period,
        debugging_handlers=flags.enable_debugging_handlers,
        verbosity=flags.v,
    )


def _settings(flags: argparse.Namespace) -> Settings:
    return Settings(
        annotation_prefix=flags.annotation_prefix,
        region=flags.aws_default_region,
        regional_sts=flags.sts_regional_endpoint,
        token_expiration=max(flags.token_expiration, MIN_TOKEN_EXPIRATION),
        token_audience=flags.token_audience,
        token_mount_path=flags.token_mount_path,
        container_credentials_audience=flags.container_credentials_audience,
        container_credentials_mount_path=flags.container_credentials_token_mount_path,
        container_credentials_volume_name=flags.container_credentials_token_volume_name,
        container_credentials_token_path=flags.container_credentials_token_path,
        container_credentials_full_uri=flags.container_credentials_full_uri,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # Without the usage of forty flags in front, which would hide the message in a pod's log.
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = _Parser(
        prog="amazon-eks-pod-identity-webhook",
        description="Mutating admission webhook for EKS Pod Identity and IAM roles for service accounts.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def text(name: str, default: str, help_: str) -> None:
        parser.add_argument(f"--{name}", default=default, metavar="TEXT", help=help_)

    def value(name: str, parse: Callable[[str], object], default: object, help_: str) -> None:
        parser.add_argument(f"--{name}", type=_typed(parse), default=default, metavar="VALUE", help=help_)

    def switch(name: str, help_: str) -> None:
        parser.add_argument(f"--{name}", type=_typed(parse_bool), default=False, metavar="BOOL", help=help_)

    value("port", _port, 443, "HTTPS port, on all addresses; 0 for any free one")
    value("metrics-port", _port, 9999, "plain HTTP port of /metrics; 0 for any free one")
    text("kubeconfig", "", "kubeconfig file; empty: in-cluster configuration")
    text("kube-api", "", "URL of the API server, instead of the kubeconfig's")
    text("namespace", "eks", "namespace of the webhook and of the ConfigMap of --watch-config-map")
    text("service-name", "pod-identity-webhook", "Service in front of the webhook; informational")
    text("tls-secret", "pod-identity-webhook", "accepted for upstream's manifests; was used with --in-cluster only")
    text("tls-cert", "/etc/webhook/certs/tls.crt", "certificate chain, PEM")
    text("tls-key", "/etc/webhook/certs/tls.key", "private key, PEM")
    value("tls-min-version", _min_version, TlsPolicy().min_version, "1.0 to 1.3, or VersionTLS10 to VersionTLS13")
    value("tls-cipher-suites", _cipher_suites, (), "IANA names, separated by commas; empty: OpenSSL's choice")
    switch("in-cluster", "refused: such certificates cannot be had any more")
    text("annotation-prefix", defaults.annotation_prefix, "prefix of the annotations")
    text("token-audience", defaults.token_audience, "audience of IRSA tokens")
    text("token-mount-path", defaults.token_mount_path, "where IRSA tokens are mounted")
    value("token-expiration", parse_int64, defaults.token_expiration, "life of tokens, seconds; at least 600")
    text("aws-default-region", "", "region to inject; empty: none")
    switch("sts-regional-endpoint", "inject AWS_STS_REGIONAL_ENDPOINTS=regional")
    switch("watch-config-map", "read roles from the ConfigMap pod-identity-webhook as well")
    switch("compose-role-arn", "complete role-arn annotations that are a role's name with the node's account")
    text("watch-container-credentials-config", "", "identities file, absolute path; empty: none")
    value(
        "watch-container-credentials-config-map",
        _namespaced_name,
        None,
        "<namespace>/<name> of a ConfigMap with identities under the key identities.json; adds to the file's",
    )
    text("container-credentials-audience", defaults.container_credentials_audience, "audience of Pod Identity tokens")
    text(
        "container-credentials-token-mount-path",
        defaults.container_credentials_mount_path,
        "where Pod Identity tokens are mounted",
    )
    text("container-credentials-token-volume-name", defaults.container_credentials_volume_name, "name of their volume")
    text("container-credentials-token-path", defaults.container_credentials_token_path, "file name in their volume")
    text("container-credentials-full-uri", defaults.container_credentials_full_uri, "credentials URI of the agent")
    value("service-account-lookup-grace-period", parse_duration, 0.0, "longest wait for an unknown account (100ms, 1s)")
    value("resync-period", parse_duration, 60.0, "accepted for upstream's manifests; our watches need no resync")
    switch("enable-debugging-handlers", "serve /debug/alpha/…")
    switch("version", "print the version and exit")
    for name in _KLOG_FLAGS:
        parser.add_argument(f"--{name}", type=_typed(parse_bool), default=False, help=argparse.SUPPRESS)
    for name in _KLOG_VALUES:
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    parser.add_argument(
        "-v", "--v", type=_typed(parse_int64), default=0, metavar="LEVEL", help="log level; 4 and more: debug"
    )
    return parser


def _typed(parse: Callable[[str], object]) -> Callable[[str], object]:
    """Let argparse show the parser's message rather than a generic one."""

    def parse_or_explain(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse_or_explain


def _port(text: str) -> int:
    port = parse_int64(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"{text!r} is no port")
    return port


def _min_version(text: str) -> ssl.TLSVersion:
    try:
        return MIN_VERSIONS[text]
    except KeyError:
        raise ValueError(f"{text!r} is none of {', '.join(MIN_VERSIONS)}") from None


def _cipher_suites(text: str) -> tuple[str, ...]:
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    for name in names:
        if name not in CIPHER_SUITES and name not in TLS13_CIPHER_SUITES:
            raise ValueError(f"{name!r} is no known cipher suite")
    return names


def _namespaced_name(text: str) -> NamespacedName | None:
    if not text:
        return None
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ValueError(f"{text!r} is not <namespace>/<name>")
    return NamespacedName(namespace, name)
