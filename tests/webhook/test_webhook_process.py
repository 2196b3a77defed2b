"""The process over time: sources of identities, service accounts, certificates, metrics, shutdown, command line."""

import json
import shutil
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from podid_webhook.files import POLL_INTERVAL
from podid_webhook.options import parse_options
from urllib3.exceptions import HTTPError
from webhook_fake_api import FakeApi, serve_fake_api
from webhook_process import (
    Certificates,
    WebhookProcess,
    create_certificates,
    https_pool,
    identities,
    pod_of,
    run_webhook,
    running_webhook,
    write_kubeconfig,
)

ROLE = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/s3-reader"}


def test_life_of_the_identities_file(certificates: Certificates, kubeconfig: Path, tmp_path: Path) -> None:
    """Every way to change it is effective (WHK-701 to WHK-704, WHK-706 to WHK-708)."""
    # As the kubelet mounts a ConfigMap: file -> ..data/file, ..data -> a dated directory.
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    publish(mounted, identities("demo/first"))
    file = mounted / "identities.json"
    file.symlink_to("..data/identities.json")
    arguments = [
        *certificates.flags,
        f"--kubeconfig={kubeconfig}",
        f"--watch-container-credentials-config={file}",
    ]
    with running_webhook(arguments, certificates.ca) as webhook:
        assert webhook.method("first") == "pod identity"

        publish(mounted, identities("demo/swapped"))
        webhook.wait_until(lambda: webhook.method("swapped"), "pod identity")
        assert webhook.method("first") == "none"

        file.unlink()
        webhook.wait_until(lambda: webhook.method("swapped"), "none")

        file.write_text(identities("demo/created"))
        webhook.wait_until(lambda: webhook.method("created"), "pod identity")

        file.write_text(identities("demo/inplace"))
        webhook.wait_until(lambda: webhook.method("inplace"), "pod identity")

        file.write_text('{"identities": [')
        webhook.wait_for_log("the previous 1 identities stay in use")
        assert webhook.method("inplace") == "pod identity"

        (tmp_path / "new").write_text(identities("demo/renamed"))
        (tmp_path / "new").rename(file)
        webhook.wait_until(lambda: webhook.method("renamed"), "pod identity")

        file.write_text("")
        webhook.wait_until(lambda: webhook.method("renamed"), "none")


def test_changes_of_files_are_effective_within_a_second() -> None:
    """WHK-702, WHK-825: a change is reported at the second reading that shows it."""
    assert 2 * POLL_INTERVAL < 1


def publish(directory: Path, content: str) -> None:
    """Swap ``..data`` as the kubelet's atomic writer does."""
    version = directory / f"..{time.monotonic_ns()}"
    version.mkdir()
    (version / "identities.json").write_text(content)
    (directory / "..data_tmp").symlink_to(version.name)
    (directory / "..data_tmp").rename(directory / "..data")


class TestWatches:
    def test_identities_config_map(self, webhook: WebhookProcess, api: FakeApi) -> None:
        """Its pairs add to the file's, at once; without it only the file's match (WHK-710)."""
        name = ("configmaps", "kube-system", "pod-identity-associations")
        assert webhook.method("from-map") == "none"

        api.put(*name, data={"identities.json": identities("demo/from-map")})
        webhook.wait_until(lambda: webhook.method("from-map"), "pod identity")
        assert webhook.method("s3-reader") == "pod identity"

        api.put(*name, data={"identities.json": "{"})
        webhook.wait_for_log("pod-identity-associations: .*the previous 1 identities stay in use")
        assert webhook.method("from-map") == "pod identity"

        api.put(*name, data={"other": "x"})
        webhook.wait_until(lambda: webhook.method("from-map"), "none")

        api.put(*name, data={"identities.json": identities("demo/again")})
        webhook.wait_until(lambda: webhook.method("again"), "pod identity")
        api.delete(*name)
        webhook.wait_until(lambda: webhook.method("again"), "none")

    def test_migration(self, webhook: WebhookProcess, api: FakeApi) -> None:
        """Annotation, association, both, association gone, annotation gone (WHK-722, WHK-901 to WHK-906)."""
        account = ("serviceaccounts", "demo", "migrating")
        association = ("configmaps", "kube-system", "pod-identity-associations")

        def observed() -> str:
            return webhook.method("migrating")

        api.put(*account, metadata={"annotations": ROLE})
        webhook.wait_until(observed, "irsa")
        api.put(*association, data={"identities.json": identities("demo/migrating")})
        webhook.wait_until(observed, "pod identity")
        api.put(*account)
        api.put(*account, metadata={"annotations": ROLE})
        api.delete(*association)
        webhook.wait_until(observed, "irsa")
        api.delete(*account)
        webhook.wait_until(observed, "none")

    def test_annotations_count_for_pod_identity(self, webhook: WebhookProcess, api: FakeApi) -> None:
        """WHK-721, WHK-724."""
        prefix = "eks.amazonaws.com"
        annotations = {f"{prefix}/sts-regional-endpoints": "false", f"{prefix}/token-expiration": "7000"}

        def observed() -> tuple[bool, bool]:
            patch = json.dumps(webhook.patch(pod_of("s3-reader")))
            return "AWS_STS_REGIONAL_ENDPOINTS" in patch, '"expirationSeconds": 7000' in patch

        assert observed() == (True, False)
        api.put("serviceaccounts", "demo", "s3-reader", metadata={"annotations": annotations})
        webhook.wait_until(observed, (False, True))
        api.delete("serviceaccounts", "demo", "s3-reader")
        webhook.wait_until(observed, (True, False))

    def test_ended_and_outdated_watches_are_resumed(self, webhook: WebhookProcess, api: FakeApi) -> None:
        """WHK-732: after an end from the last version, after 410 with a new list; the cache answers meanwhile."""
        for number in range(5):
            api.put("serviceaccounts", "demo", f"resumed-{number}", metadata={"annotations": ROLE})
        webhook.wait_until(lambda: webhook.method("resumed-4"), "irsa")

        api.end_watches()
        api.put("serviceaccounts", "demo", "late", metadata={"annotations": ROLE})
        webhook.wait_until(lambda: webhook.method("late"), "irsa")

        api.delete("serviceaccounts", "demo", "resumed-0")
        webhook.wait_until(lambda: webhook.method("resumed-0"), "none")
        api.forget_history()
        webhook.wait_for_log("too old to be resumed")
        api.put("serviceaccounts", "demo", "later", metadata={"annotations": ROLE})
        webhook.wait_until(lambda: webhook.method("later"), "irsa")
        assert [webhook.method(f"resumed-{number}") for number in range(5)] == ["none", *["irsa"] * 4]

    def test_metrics(self, webhook: WebhookProcess) -> None:
        """Upstream's names, exactly (WHK-843 to WHK-849)."""

        def sample(name: str) -> float:
            text = webhook.plain.request("GET", "/metrics").data.decode()
            return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + " "))

        requests = 'http_request_count{code="200",path="/mutate",verb="POST"}'
        pods = 'pod_identity_webhook_pod_count{method="container_credentials"}'
        before = sample(requests), sample(pods), sample("pod_identity_webhook_missing_sa_count")

        webhook.review(pod_of("s3-reader"))
        webhook.review(pod_of("never-seen"))
        webhook.get("/healthz")

        assert sample(requests) == before[0] + 2
        assert sample(pods) == before[1] + 1
        assert sample("pod_identity_webhook_missing_sa_count") == before[2] + 1
        assert sample('http_request_latencies_bucket{le="125000.0",path="/mutate",verb="POST"}') > 0
        assert sample('http_request_duration_microseconds_count{path="/mutate",verb="POST"}') > 0
        assert sample("pod_identity_webhook_used") == 1
        assert sample("pod_identity_webhook_certificate_expiry_seconds") > time.time()

    def test_healthz(self, webhook: WebhookProcess) -> None:
        assert (webhook.get("/healthz").status, webhook.get("/healthz").data) == (200, b"ok")

    def test_debugging_handlers_are_off(self, webhook: WebhookProcess) -> None:
        assert webhook.get("/debug/alpha/500").status == 404
        assert webhook.plain.request("GET", "/debug/alpha/cache").status == 404


def test_start_without_api_server(certificates: Certificates, tmp_path: Path) -> None:
    """It answers, says that it is not ready and why, and becomes ready by itself (WHK-842)."""
    with serve_fake_api() as api:
        api.forbidden.add("serviceaccounts")
        arguments = [*certificates.flags, f"--kubeconfig={write_kubeconfig(api, tmp_path / 'kube')}"]
        with running_webhook(arguments, certificates.ca) as webhook:
            webhook.wait_for_log("/api/v1/serviceaccounts: ApiError 403")
            unready = webhook.get("/readyz")
            assert (unready.status, unready.data) == (
                503,
                b"not ready: service accounts: ApiError 403: GET /api/v1/serviceaccounts: Forbidden\n",
            )
            assert webhook.get("/healthz").status == 200
            assert webhook.method("s3-reader") == "none"

            api.forbidden.clear()
            webhook.wait_until_ready()
            assert sum("ApiError 403" in line for line in webhook.log) == 1


def test_roles_config_map_forbidden(certificates: Certificates, tmp_path: Path) -> None:
    """Said once, and serving goes on (WHK-746); entries arrive when it may be read (WHK-741, WHK-742, WHK-745)."""
    with serve_fake_api() as api:
        api.forbidden.add("configmaps")
        arguments = [
            *certificates.flags,
            f"--kubeconfig={write_kubeconfig(api, tmp_path / 'kube')}",
            "--watch-config-map",
        ]
        with running_webhook(arguments, certificates.ca) as webhook:
            webhook.wait_until_ready()
            webhook.wait_for_log("configmaps: ApiError 403")

            entries = {
                "demo/listed": {"RoleARN": "arn"},
                "*/wild": {"RoleARN": "arn"},
                "no-slash": {},
                "demo/null": None,
            }
            api.put("configmaps", "eks", "pod-identity-webhook", data={"config": json.dumps(entries)})
            api.forbidden.clear()
            webhook.wait_until(lambda: webhook.method("listed"), "irsa")
            assert [webhook.method(name) for name in ("wild", "no-slash", "null")] == ["irsa", "none", "none"]

            api.delete("configmaps", "eks", "pod-identity-webhook")
            webhook.wait_until(lambda: webhook.method("listed"), "none")


def test_grace_period(certificates: Certificates, tmp_path: Path) -> None:
    """A read of the one account ends the wait, which all reviews of it share (WHK-727 to WHK-730, WHK-212)."""
    with serve_fake_api() as api:
        api.hidden_from_watches.add("new")
        api.put("serviceaccounts", "demo", "new", metadata={"annotations": ROLE})
        api.put("serviceaccounts", "demo", "plain")
        identities_file = tmp_path / "identities.json"
        identities_file.write_text(identities("demo/listed"))
        arguments = [
            *certificates.flags,
            f"--kubeconfig={write_kubeconfig(api, tmp_path / 'kube')}",
            f"--watch-container-credentials-config={identities_file}",
        ]
        period = "--service-account-lookup-grace-period"
        with running_webhook([*arguments, f"{period}=9s"], certificates.ca) as webhook:
            webhook.wait_until_ready()

            assert webhook.method("plain") == "none"
            assert webhook.method("listed") == "pod identity"
            assert not [path for path in api.requests if path.startswith("/api/v1/namespaces/demo/serviceaccounts/")]

            methods: list[str] = []
            threads = [threading.Thread(target=lambda: methods.append(webhook.method("new"))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert methods == ["irsa"] * 4
            assert api.requests.count("/api/v1/namespaces/demo/serviceaccounts/new") == 1

        with running_webhook([*arguments, f"{period}=300ms"], certificates.ca) as webhook:
            webhook.wait_until_ready()

            started = time.monotonic()
            assert webhook.method("absent") == "none"
            assert time.monotonic() - started >= 0.3
            webhook.wait_for_log("serviceAccount='absent' outcome='timed out'")


class TestCertificates:
    def test_rotation(self, kubeconfig: Path, tmp_path: Path) -> None:
        """A new pair is served to new connections, half of one is not, and old connections go on (WHK-822, WHK-823)."""
        certificates = create_certificates(tmp_path / "served")
        first = serial(tmp_path / "served" / "tls.crt")
        replacement = create_certificates(tmp_path / "new")
        second = serial(tmp_path / "new" / "tls.crt")
        both = tmp_path / "both.crt"
        both.write_bytes(certificates.ca.read_bytes() + replacement.ca.read_bytes())
        with running_webhook([*certificates.flags, f"--kubeconfig={kubeconfig}"], both) as webhook:

            def served() -> int:
                with https_pool(webhook.port, both) as pool:
                    connection = pool._get_conn()
                    connection.connect()
                    certificate = connection.sock.getpeercert(binary_form=True)
                    connection.close()
                return x509.load_der_x509_certificate(certificate).serial_number

            assert served() == first
            shutil.copy(tmp_path / "new" / "tls.key", tmp_path / "served" / "tls.key")
            webhook.wait_for_log("the previous certificate stays in service")
            assert served() == first

            shutil.copy(tmp_path / "new" / "tls.crt", tmp_path / "served" / "tls.crt")
            webhook.wait_until(served, second)
            # Also to a client that names no server, as the kubelet does with its probes.
            nameless = ssl.get_server_certificate(("127.0.0.1", webhook.port)).encode()
            assert x509.load_pem_x509_certificate(nameless).serial_number == second
            # The connection from before goes on.
            assert webhook.get("/healthz").status == 200

    def test_names(self, certificates: Certificates) -> None:
        """WHK-826."""
        certificate = x509.load_pem_x509_certificate((certificates.directory / "tls.crt").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

        assert names.get_values_for_type(x509.DNSName) == [
            "pod-identity-webhook",
            "pod-identity-webhook.kube-system",
            "pod-identity-webhook.kube-system.svc",
            "pod-identity-webhook.kube-system.svc.cluster.local",
        ]
        assert (certificates.directory / "tls.key").stat().st_mode & 0o777 == 0o600

    def test_other_ca_is_refused_by_the_client(self, webhook: WebhookProcess, tmp_path: Path) -> None:
        """The shadow of all tests above: they do verify the certificate."""
        other = create_certificates(tmp_path / "other")

        with https_pool(webhook.port, other.ca) as pool, pytest.raises(HTTPError, match="certificate verify failed"):
            pool.request("GET", "/healthz")

    @pytest.mark.parametrize(("version", "refused"), [("-tls1_1", True), ("-tls1_2", False)])
    def test_minimum_version(self, webhook: WebhookProcess, version: str, refused: bool) -> None:
        """TLS 1.2 unless a flag says otherwise (WHK-829)."""
        # Level 0, or this machine's client would not offer TLS 1.1 to begin with.
        assert handshake_fails(webhook.port, version, "-cipher", "DEFAULT@SECLEVEL=0") is refused

    def test_minimum_version_can_be_lowered(self, certificates: Certificates, kubeconfig: Path) -> None:
        """The shadow of the test above."""
        arguments = [*certificates.flags, f"--kubeconfig={kubeconfig}", "--tls-min-version=1.1"]
        with running_webhook(arguments, certificates.ca) as webhook:
            assert handshake_fails(webhook.port, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0") is False

    def test_policy_flags(self, certificates: Certificates, kubeconfig: Path) -> None:
        """WHK-828, WHK-830."""
        suites = "--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, ,TLS_AES_128_GCM_SHA256"
        arguments = [*certificates.flags, f"--kubeconfig={kubeconfig}", suites]
        with running_webhook(arguments, certificates.ca) as webhook:
            assert handshake_fails(webhook.port, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384") is False
            assert handshake_fails(webhook.port, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256") is True
        with running_webhook([*arguments, "--tls-min-version=VersionTLS13"], certificates.ca) as webhook:
            assert handshake_fails(webhook.port, "-tls1_2") is True
            assert handshake_fails(webhook.port, "-tls1_3") is False


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def handshake_fails(port: int, *options: str) -> bool:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0


def test_stop_finishes_running_reviews(certificates: Certificates, tmp_path: Path) -> None:
    """SIGTERM: an accepted review is answered, new connections are refused, exit code 0 (WHK-851)."""
    with serve_fake_api() as api:
        arguments = [
            *certificates.flags,
            f"--kubeconfig={write_kubeconfig(api, tmp_path / 'kube')}",
            "--service-account-lookup-grace-period=1s",
        ]
        with running_webhook(arguments, certificates.ca) as webhook:
            webhook.wait_until_ready()
            answers: list[object] = []
            review = threading.Thread(target=lambda: answers.append(webhook.review(pod_of("slow"))))
            review.start()
            # The read of the account shows that the review has been accepted and waits.
            path = "/api/v1/namespaces/demo/serviceaccounts/slow"
            webhook.wait_until(lambda: api.requests.count(path), 1)

            assert webhook.stop() == 0

            review.join()
            assert answers == [{"uid": "u-1", "allowed": True}]
            with https_pool(webhook.port, certificates.ca) as pool, pytest.raises(HTTPError, match="refused"):
                pool.request("GET", "/healthz")


def test_debugging_handlers(certificates: Certificates, tmp_path: Path) -> None:
    """WHK-850."""
    with serve_fake_api() as api:
        api.put("serviceaccounts", "demo", "s3-reader", metadata={"annotations": ROLE})
        arguments = [
            *certificates.flags,
            f"--kubeconfig={write_kubeconfig(api, tmp_path / 'kube')}",
            "--enable-debugging-handlers",
        ]
        with running_webhook(arguments, certificates.ca) as webhook:
            webhook.wait_until_ready()

            assert webhook.get("/debug/alpha/500").status == 500
            denial = webhook.get("/debug/alpha/deny").json()["response"]
            assert (denial["allowed"], denial["status"]["message"]) == (False, "Test deny message")
            cache = webhook.plain.request("GET", "/debug/alpha/cache").json()
            assert cache["demo/s3-reader"]["role_arn"] == "arn:aws:iam::123456789012:role/s3-reader"
            webhook.plain.request("GET", "/debug/alpha/cache/clear")
            assert webhook.method("s3-reader") == "none"


class TestCommandLine:
    def test_version(self) -> None:
        """Run by the interpreter, as a container does it."""
        command = [sys.executable, "-m", "podid_webhook", "--version"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        assert (result.returncode, result.stdout) == (0, "0.1.0\n")

    @pytest.mark.parametrize(
        ("argument", "named"),
        [
            ("--no-such-flag=1", "--no-such-flag"),
            ("--port=many", "--port"),
            ("--port", "--port"),
            ("--sts-regional-endpoint=yes", "--sts-regional-endpoint"),
            ("--service-account-lookup-grace-period=100", "--service-account-lookup-grace-period"),
            ("--tls-min-version=1.4", "--tls-min-version"),
            ("--tls-min-version=TLS1.2", "--tls-min-version"),
            ("--tls-cipher-suites=TLS_NONE", "--tls-cipher-suites"),
            ("--in-cluster", "--in-cluster"),
            ("--compose-role-arn", "--compose-role-arn"),
            ("--watch-container-credentials-config=relative", "--watch-container-credentials-config"),
            ("--watch-container-credentials-config-map=name", "--watch-container-credentials-config-map"),
        ],
    )
    def test_wrong_flags(self, argument: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
        """WHK-863, WHK-831: the process ends and the message names the flag."""
        with pytest.raises(SystemExit) as ended:
            parse_options([argument])

        assert ended.value.code == 2
        assert named in capsys.readouterr().err

    def test_missing_certificate(self, kubeconfig: Path) -> None:
        """WHK-824."""
        result = run_webhook(f"--kubeconfig={kubeconfig}", "--tls-cert=/nowhere/tls.crt")

        assert result.returncode != 0
        assert "/nowhere/tls.crt" in result.stderr

    def test_no_kubernetes_configuration(self, certificates: Certificates) -> None:
        """WHK-864."""
        result = run_webhook(*certificates.flags)

        assert result.returncode != 0
        assert "KUBERNETES_SERVICE_HOST" in result.stderr

    def test_missing_directory_of_identities(self, certificates: Certificates, kubeconfig: Path) -> None:
        """WHK-706."""
        flag = "--watch-container-credentials-config=/nowhere/identities.json"
        result = run_webhook(*certificates.flags, f"--kubeconfig={kubeconfig}", flag)

        assert result.returncode != 0
        assert "/nowhere" in result.stderr

    def test_arguments_of_upstream_manifests(self, certificates: Certificates, kubeconfig: Path) -> None:
        """WHK-862: klog's flags and both spellings of booleans and values start ours."""
        upstream = ["--in-cluster=false", "--namespace", "default", "--service-name=x", "--tls-secret=x", "-v=4"]
        klog = ["--logtostderr", "--alsologtostderr=false", "--stderrthreshold=INFO", "--vmodule=a=1"]
        flags = ["--annotation-prefix=eks.amazonaws.com", "--token-audience=sts.amazonaws.com", "--resync-period=60s"]
        arguments = [*certificates.flags, "--kubeconfig", str(kubeconfig), *upstream, *klog, *flags]

        with running_webhook(arguments, certificates.ca) as webhook:
            webhook.wait_until_ready()
            assert webhook.stop() == 0
