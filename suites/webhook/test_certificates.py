"""Section 10.2 of the contract: the serving certificate, its rotation, and what may be negotiated."""

from __future__ import annotations

import re
import shutil
import ssl
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.outcomes import could_not_run
from harness.conformance.recording import check
from harness.errors import SubjectFault
from harness.pki import Authority, KeyPair
from harness.subject.reviews import pod
from harness.subject.webhook import ServingFiles, Surroundings, Webhook

Version = ssl.TLSVersion


def serial(certificate: bytes) -> int:
    return x509.load_der_x509_certificate(certificate).serial_number


def serial_of(pair: KeyPair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.encode()).serial_number


def served(webhook: Webhook) -> int:
    """Return the serial number of the certificate that a new connection sees."""
    try:
        with webhook.socket() as connection:
            return serial(connection.getpeercert(binary_form=True) or b"")
    except OSError as error:
        raise SubjectFault(f"no handshake: {type(error).__name__}: {error}") from error


def negotiated(webhook: Webhook, version: Version, ciphers: str = "DEFAULT@SECLEVEL=0") -> str | None:
    """Return the cipher that is agreed on with one version of TLS, None if there is no agreement."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        # Old versions are deprecated, which is why they must be refused.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    # Level 0, or this machine's client would not offer old versions to begin with.
    context.set_ciphers(ciphers)
    if not webhook.is_running:
        raise SubjectFault("the webhook does not run")
    try:
        with webhook.socket(context) as connection:
            cipher = connection.cipher()
            return cipher[0] if cipher else None
    except (ssl.SSLError, ConnectionResetError):
        return None
    except OSError as error:
        raise SubjectFault(f"neither a handshake nor a refusal: {type(error).__name__}: {error}") from error


@requirement("WHK-821")
def test_files_of_the_flags_are_served(eks: Webhook, surroundings: Surroundings) -> None:
    """A client sees the certificate of --tls-cert, under the Service's name."""
    expected = x509.load_pem_x509_certificate(surroundings.certificates.certificate.read_bytes()).serial_number

    assert served(eks) == expected
    assert eks.review(pod()).response.get("allowed") is True


@requirement("WHK-821")
def test_client_notices_another_authority(eks: Webhook) -> None:
    """The shadow of all other tests: what they ask is checked against the one authority."""
    other = ssl.create_default_context(cadata=Authority("other").certificate)

    assert eks.review(pod()).response.get("allowed") is True
    with pytest.raises(ssl.SSLCertVerificationError):
        eks.socket(other)


@pytest.fixture
def rotating(surroundings: Surroundings, tmp_path: Path) -> Iterator[tuple[Webhook, ServingFiles, int]]:
    """A webhook with certificate files of its own, and the serial number that it began with."""
    pair = surroundings.new_pair()
    files = ServingFiles(tmp_path / "certificates").write(pair)
    with surroundings.webhook(own=surroundings.flags(certificates=files)) as webhook:
        yield webhook, files, serial_of(pair)


def wait_until_served(webhook: Webhook, expected: int) -> float:
    started = time.monotonic()
    wait.until(
        lambda: served(webhook),
        lambda s: s == expected,
        what=f"certificate {expected} to be served",
        timeout=limits.SUBJECT_ACTS,
    )
    return time.monotonic() - started


@requirement("WHK-822", "WHK-825")
def test_new_files_are_served(rotating: tuple[Webhook, ServingFiles, int], surroundings: Surroundings) -> None:
    """A pair that is written in place is used for new connections within ten seconds; old connections go on."""
    webhook, files, first = rotating
    before = served(webhook)
    webhook.admit(pod())
    pair = surroundings.new_pair()

    files.write(pair)
    seconds = wait_until_served(webhook, serial_of(pair))

    check("WHK-822", expected=(first, serial_of(pair)), observed=(before, served(webhook)))
    check("WHK-822", expected=True, observed=webhook.admit(pod()).response.get("allowed"), what="old connection")
    check("WHK-825", expected="within 10 s", observed=round(seconds, 2), holds=seconds <= 10)


@requirement("WHK-822")
def test_swap_of_a_mounted_secret_is_served(surroundings: Surroundings, tmp_path: Path) -> None:
    """The kubelet's swap of `..data` is noticed."""
    first, second = surroundings.new_pair(), surroundings.new_pair()
    publish(tmp_path, first)
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")

    with surroundings.webhook(own=surroundings.flags(certificates=ServingFiles(tmp_path))) as webhook:
        assert served(webhook) == serial_of(first)
        publish(tmp_path, second)
        wait_until_served(webhook, serial_of(second))


def publish(directory: Path, pair: KeyPair) -> None:
    """Swap ``..data`` as the kubelet's atomic writer does, and remove what it led to."""
    old = (directory / "..data").resolve()
    version = directory / f"..{time.monotonic_ns()}"
    version.mkdir()
    pair.write(version, "tls")
    (directory / "..data_tmp").symlink_to(version.name)
    (directory / "..data_tmp").rename(directory / "..data")
    shutil.rmtree(old, ignore_errors=True)


@requirement("WHK-823", "WHK-825")
@pytest.mark.parametrize("fault", ["key alone", "certificate alone", "broken"])
def test_unusable_pair_is_not_served(
    rotating: tuple[Webhook, ServingFiles, int], surroundings: Surroundings, fault: str
) -> None:
    """Half of a new pair and a broken one leave the old one in service."""
    webhook, files, first = rotating
    before = served(webhook)
    new = ServingFiles(files.directory.parent / "new").write(surroundings.new_pair())

    match fault:
        case "key alone":
            shutil.copy(new.key, files.key)
        case "certificate alone":
            shutil.copy(new.certificate, files.certificate)
        case _:
            files.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    during = served_for_a_second(webhook)
    shutil.copy(new.key, files.key)
    shutil.copy(new.certificate, files.certificate)
    wait_until_served(webhook, x509.load_pem_x509_certificate(new.certificate.read_bytes()).serial_number)

    check("WHK-823", expected=(first, {first}), observed=(before, during))
    check("WHK-825", expected={first}, observed=during, what="half-written")


def served_for_a_second(webhook: Webhook) -> set[int]:
    """Return the serial numbers that connections see in a second, in which a change would have been noticed."""
    seen: set[int] = set()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        seen.add(served(webhook))
        time.sleep(0.02)
    return seen


@requirement("WHK-823")
@pytest.mark.usefixtures("ours_alone")  # what AWS's webhook would say is lost, for want of a logger
def test_unusable_pair_is_logged(rotating: tuple[Webhook, ServingFiles, int]) -> None:
    """Whoever reads the log learns of a pair that is not served."""
    webhook, files, _ = rotating
    webhook.get("/healthz")
    files.certificate.write_text("x")

    webhook.wait_for_log(re.escape(str(files.certificate)))


@requirement("WHK-825")
def test_rotation_under_load(rotating: tuple[Webhook, ServingFiles, int], surroundings: Surroundings) -> None:
    """While pairs are replaced, every new connection succeeds and sees a whole pair."""
    webhook, files, first = rotating
    pairs = [surroundings.new_pair() for _ in range(3)]
    known = {first, *map(serial_of, pairs)}
    served(webhook)
    seen: list[int] = []
    stop = False

    def ask() -> None:
        while not stop:
            seen.append(served(webhook))

    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(ask) for _ in range(2)]
        try:
            for pair in pairs:
                files.write(pair)
                wait_until_served(webhook, serial_of(pair))
        finally:
            stop = True
        for thread in asking:
            thread.result()

    assert len(seen) > len(pairs)
    assert set(seen) <= known


@requirement("WHK-824")
@pytest.mark.parametrize("fault", ["no certificate", "no key", "broken certificate", "other key"])
def test_unusable_pair_at_start_is_fatal(surroundings: Surroundings, tmp_path: Path, fault: str) -> None:
    """The webhook ends with an error that names the file."""
    files = ServingFiles(tmp_path).write(surroundings.new_pair())
    match fault:
        case "no certificate":
            files.certificate.unlink()
        case "no key":
            files.key.unlink()
        case "broken certificate":
            files.certificate.write_text("x")
        case _:
            files.key.write_text(surroundings.new_pair().key)

    ended = surroundings.run_to_its_end(*surroundings.flags(certificates=files))

    named = {"no certificate": files.certificate, "broken certificate": files.certificate}.get(fault, files.key)
    assert ended.exit_code not in (0, None)
    # AWS's webhook names the file that it cannot open; what it says of a pair that does not match is its own affair.
    assert str(named) in ended.output or (fault in {"broken certificate", "other key"} and "tls" in ended.output)


@requirement("WHK-824")
def test_default_files(surroundings: Surroundings) -> None:
    """Without the flags the pair is looked for in /etc/webhook/certs."""
    if Path("/etc/webhook/certs/tls.crt").exists():
        could_not_run("environment", "this machine has /etc/webhook/certs/tls.crt")

    ended = surroundings.run_to_its_end("--in-cluster=false", f"--kubeconfig={surroundings.kubeconfig}")

    assert ended.exit_code not in (0, None)
    assert "/etc/webhook/certs/tls.crt" in ended.output


@requirement("WHK-829")
def test_versions_by_default(eks: Webhook) -> None:
    """TLS 1.2 and 1.3 are spoken, older versions are refused."""
    assert negotiated(eks, Version.TLSv1_2)
    assert negotiated(eks, Version.TLSv1_3)
    assert negotiated(eks, Version.TLSv1_1) is None
    assert negotiated(eks, Version.TLSv1) is None


@requirement("WHK-828")
@pytest.mark.parametrize(
    ("flag", "spoken"),
    [
        ("1.1", {"1.1", "1.2", "1.3"}),
        ("VersionTLS12", {"1.2", "1.3"}),
        ("1.3", {"1.3"}),
        ("VersionTLS13", {"1.3"}),
    ],
)
def test_minimum_version(surroundings: Surroundings, flag: str, spoken: set[str]) -> None:
    """The flag takes a version or its name in Go, and sets the oldest that is spoken."""
    versions = {"1.1": Version.TLSv1_1, "1.2": Version.TLSv1_2, "1.3": Version.TLSv1_3}

    with surroundings.webhook(f"--tls-min-version={flag}") as webhook:
        webhook.get("/healthz")
        assert {name for name, version in versions.items() if negotiated(webhook, version)} == spoken


@requirement("WHK-828")
@pytest.mark.parametrize("flag", ["1.4", "TLS1.2"])
def test_other_minimum_versions_are_fatal(surroundings: Surroundings, flag: str) -> None:
    """Anything else ends the webhook, which names it."""
    ended = surroundings.run_to_its_end(*surroundings.flags(), f"--tls-min-version={flag}")

    assert ended.exit_code not in (0, None)
    assert flag in ended.output


@requirement("WHK-830")
def test_cipher_suites(surroundings: Surroundings) -> None:
    """Those that the flag lists are spoken and no others; blanks and empty items do not count."""
    # One that HTTP/2 wants: AWS's webhook does not start without.
    flag = "--tls-cipher-suites= TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 , ,TLS_AES_128_GCM_SHA256"

    with surroundings.webhook(flag) as webhook:
        webhook.get("/healthz")
        listed = negotiated(webhook, Version.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256")
        other = negotiated(webhook, Version.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384")

    assert (listed, other) == ("ECDHE-ECDSA-AES128-GCM-SHA256", None)


@requirement("WHK-830")
def test_unknown_cipher_suite_is_fatal(surroundings: Surroundings) -> None:
    """An unknown name ends the webhook, which names it."""
    ended = surroundings.run_to_its_end(*surroundings.flags(), "--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_NONE")

    assert ended.exit_code not in (0, None)
    assert "TLS_NONE" in ended.output
