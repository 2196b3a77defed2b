"""Section 9.1 of the contract: the identities file, and every way in which it changes."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import limits, wait
from harness.conformance.marks import requirement
from harness.conformance.recording import check
from harness.subject.kube_api import KubeApi
from harness.subject.reviews import pod
from harness.subject.webhook import Surroundings, Webhook, identities

EFFECTIVE_SECONDS = 10.0


class File:
    """An identities file in a directory of its own, and a webhook that reads it."""

    def __init__(self, webhook: Webhook, path: Path) -> None:
        self.webhook = webhook
        self.path = path
        self.count = 0

    def rename_into_place(self, content: str) -> None:
        new = self.path.with_name("new")
        new.write_text(content)
        new.rename(self.path)

    def mechanism(self, account: str) -> str:
        return self.webhook.mechanism(account)

    def wait_for(self, account: str, mechanism: str) -> float:
        """Return after how many seconds a pod of the account gets this mechanism, or fail."""
        started = time.monotonic()
        wait.until(
            lambda: self.mechanism(account),
            lambda observed: observed == mechanism,
            what=f"a pod of demo/{account} to get {mechanism}",
            timeout=limits.SUBJECT_ACTS,
        )
        return time.monotonic() - started

    def take(self, content: str, write: Callable[[str], object] | None = None) -> None:
        """Put a content into the file that counts, and return when it does."""
        self.count += 1
        document = json.loads(content)
        document["identities"].append({"namespace": "demo", "serviceAccount": f"marker-{self.count}"})
        (write or self.path.write_text)(json.dumps(document))
        self.wait_for(f"marker-{self.count}", "Pod Identity")


@pytest.fixture(scope="module")
def file(surroundings: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[File]:
    path = tmp_path_factory.mktemp("identities") / "identities.json"
    with surroundings.webhook(f"--watch-container-credentials-config={path}") as webhook:
        yield File(webhook, path)


# The first test of the file: the webhook was started without one.
@requirement("WHK-703", "WHK-706")
def test_file_may_come_after_the_start(file: File) -> None:
    """Without a file nobody matches; one that comes into being counts."""
    missing = file.mechanism("first")
    file.path.write_text(identities("demo/first"))
    file.wait_for("first", "Pod Identity")

    check("WHK-703", expected="none", observed=missing)
    check("WHK-706", expected="Pod Identity", observed=file.mechanism("first"))


@requirement("WHK-701", "WHK-702")
@pytest.mark.parametrize("way", ["in place", "rename"])
def test_change_counts(file: File, way: str) -> None:
    """A file that is rewritten, or replaced by a rename, counts within ten seconds, all of it."""
    write = file.path.write_text if way == "in place" else file.rename_into_place
    file.take(identities("demo/before"))

    write(identities("demo/after", "demo/after-too"))
    seconds = file.wait_for("after", "Pod Identity")

    observed = [file.mechanism(account) for account in ("after", "after-too", "before")]
    check("WHK-701", expected="within 10 s", observed=round(seconds, 2), holds=seconds < EFFECTIVE_SECONDS)
    check("WHK-701", expected="none", observed=observed[-1], what="an association that is gone")
    check("WHK-702", expected=["Pod Identity", "Pod Identity", "none"], observed=observed)


@requirement("WHK-701")
def test_file_is_read_at_start(surroundings: Surroundings, tmp_path: Path) -> None:
    """The first review already knows what is in it."""
    path = tmp_path / "identities.json"
    path.write_text(identities("demo/first"))

    with surroundings.webhook(f"--watch-container-credentials-config={path}") as webhook:
        assert webhook.mechanism("first") == "Pod Identity"


@requirement("WHK-703")
@pytest.mark.parametrize("way", ["removed", "emptied"])
def test_file_without_bytes_lists_nobody(file: File, way: str) -> None:
    """A file that is removed or has zero bytes means that nobody has an association."""
    file.take(identities("demo/listed"))

    if way == "removed":
        file.path.unlink()
    else:
        file.path.write_bytes(b"")

    file.wait_for("listed", "none")


@requirement("WHK-704")
@pytest.mark.parametrize(
    "content",
    [
        b" \n",
        b"[]",
        b"5",
        b'{"identities": {}}',
        b'{"identities": [5]}',
        b'{"identities": [{"namespace": 0, "serviceAccount": "s"}]}',
        b'{"identities": []} x',
        b'{"identities": [',
        b"\xff",
    ],
)
def test_malformed_file_changes_nothing(file: File, content: bytes) -> None:
    """While the file is malformed the former set counts; good content then takes over."""
    file.take(identities("demo/former"))
    before = len(file.webhook.log)

    new = file.path.with_name("new")
    new.write_bytes(content)
    new.rename(file.path)
    # A line in the log shows that it was read; a webhook that says nothing has had a second.
    with contextlib.suppress(wait.Timeout):
        wait.until(lambda: len(file.webhook.log) > before, what="a line in the log", timeout=limits.LOG_LINE)
    during = file.mechanism("former")
    file.take(identities("demo/latter"))

    assert during == "Pod Identity"
    assert [file.mechanism(account) for account in ("former", "latter")] == ["none", "Pod Identity"]


@requirement("WHK-705")
@pytest.mark.parametrize("content", ["{}", "null", '{"identities": null}', '{"identities": []}', '{"other": 1}'])
def test_empty_documents_list_nobody(file: File, content: str) -> None:
    """An empty or null document or list is valid and empty."""
    file.take(identities("demo/listed"))

    file.path.write_text(content)

    file.wait_for("listed", "none")


@requirement("WHK-705")
@pytest.mark.parametrize(
    "content",
    [
        '{"identities": [{"namespace": "demo", "serviceAccount": "%s", "roleArn": "x"}], "version": 2}',
        '{"IDENTITIES": [{"Namespace": "demo", "SERVICEACCOUNT": "%s"}]}',
        '{"identities": [' + ", ".join(['{"namespace": "demo", "serviceAccount": "%s"}'] * 2) + "]}",
    ],
    ids=["unknown keys", "letter case", "repeated"],
)
def test_lenient_format(file: File, content: str) -> None:
    """Unknown keys, keys in another case and repeated entries are valid."""
    file.count += 1
    account = f"lenient-{file.count}"

    file.path.write_text(content.replace("%s", account))

    file.wait_for(account, "Pod Identity")


@requirement("WHK-706")
def test_missing_directory_is_fatal(surroundings: Surroundings) -> None:
    """A webhook whose file's directory is missing at start ends, and says which."""
    flag = "--watch-container-credentials-config=/no-such-directory/identities.json"

    ended = surroundings.run_to_its_end(*surroundings.flags(), flag)

    assert ended.exit_code not in (0, None)
    assert "/no-such-directory" in ended.output


@requirement("WHK-707", "WHK-708")
def test_swap_of_a_mounted_config_map(surroundings: Surroundings, tmp_path: Path) -> None:
    """The kubelet's swap of `..data` is noticed, within a second as every change of the file."""
    publish(tmp_path, identities("demo/first"))
    path = tmp_path / "identities.json"
    path.symlink_to("..data/identities.json")

    with surroundings.webhook(f"--watch-container-credentials-config={path}") as webhook:
        file = File(webhook, path)
        first = file.mechanism("first")
        seconds: list[float] = []
        for number in range(3):
            publish(tmp_path, identities(f"demo/swapped-{number}"))
            seconds.append(file.wait_for(f"swapped-{number}", "Pod Identity"))
        last = file.mechanism("swapped-1")

    check("WHK-707", expected=("Pod Identity", "none"), observed=(first, last))
    check("WHK-708", expected="within 1 s", observed=[round(s, 2) for s in seconds], holds=max(seconds) < 1)


def publish(directory: Path, content: str) -> None:
    """Swap ``..data`` as the kubelet's atomic writer does, and remove what it led to."""
    old = (directory / "..data").resolve()
    version = directory / f"..{time.monotonic_ns()}"
    version.mkdir()
    (version / "identities.json").write_text(content)
    (directory / "..data_tmp").symlink_to(version.name)
    (directory / "..data_tmp").rename(directory / "..data")
    shutil.rmtree(old, ignore_errors=True)


@requirement("WHK-709")
@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"namespace": "demo"},
        {"namespace": "demo", "serviceAccount": ""},
        {"namespace": "demo", "serviceAccount": None},
        {"serviceAccount": "s3-reader"},
        {"namespace": "", "serviceAccount": "s3-reader"},
        None,
    ],
)
def test_entry_without_a_name_is_skipped(file: File, entry: object) -> None:
    """It matches no mirror pod, and spoils no other entry."""
    file.take(json.dumps({"identities": [entry, {"namespace": "demo", "serviceAccount": "complete"}]}))

    assert file.mechanism("complete") == "Pod Identity"
    assert file.webhook.review(pod(service_account="")).patch == []
    assert file.webhook.review(pod(), "").patch == []


@requirement("WHK-710")
def test_identities_config_map(surroundings: Surroundings, kube_api: KubeApi, tmp_path: Path) -> None:
    """Pairs of the ConfigMap of our own flag add to those of the file, and go with it."""
    path = tmp_path / "identities.json"
    path.write_text(identities("demo/of-file"))
    config_map = ("kube-system", "associations")
    flag = "--watch-container-credentials-config-map=kube-system/associations"

    with surroundings.webhook(f"--watch-container-credentials-config={path}", flag) as webhook:
        file = File(webhook, path)
        kube_api.put_config_map(*config_map, {"identities.json": identities("demo/of-map")})
        file.wait_for("of-map", "Pod Identity")
        both = [file.mechanism(account) for account in ("of-file", "of-map")]
        kube_api.put_config_map(*config_map, {"identities.json": "{"})
        webhook.wait_for_log("associations.*stay in use")
        broken = file.mechanism("of-map")
        kube_api.delete("configmaps", *config_map)
        file.wait_for("of-map", "none")

    assert both == ["Pod Identity", "Pod Identity"]
    assert broken == "Pod Identity"
