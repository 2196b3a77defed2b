"""The process as a whole: where it listens, what it needs, when it is ready, and what is left of it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.cloud.localstack.environment import Environment
from harness.conformance.outcomes import could_not_run
from harness.errors import HarnessFault
from harness.subject.aws import ACCOUNT, OTHER_ACCOUNT, REGION, Aws, refused
from harness.subject.running_aws import running_aws

ROOT = Path(__file__).parents[3]


@pytest.fixture
def second(localstack_environment: Environment, tmp_path: Path) -> Iterator[Aws]:
    """A process of its own beside the one of the session."""
    with running_aws(localstack_environment, tmp_path) as running:
        yield running


def listening(pid: int) -> set[tuple[str, int]]:
    """Return addresses and ports on which a process accepts connections."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    inodes = {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                number = struct.pack("=I", int(address, 16)) if table == "tcp" else bytes.fromhex(address)
                found.add((socket.inet_ntoa(number) if table == "tcp" else number.hex(), int(port, 16)))
    return found


def inventory(aws: Aws) -> dict[str, object]:
    """Return what there is in both accounts, by service."""
    found: dict[str, object] = {}
    for account in (ACCOUNT, OTHER_ACCOUNT):
        key = aws.bootstrap.account(account).administrator
        calls = {
            "dynamodb": lambda client: client.list_tables()["TableNames"],
            "eks": lambda client: client.list_clusters()["clusters"],
            "elbv2": lambda client: client.describe_load_balancers()["LoadBalancers"],
            "groups": lambda client: client.describe_security_groups()["SecurityGroups"],
            "iam": lambda client: client.list_roles()["Roles"],
            "kms": lambda client: client.list_keys()["Keys"],
            "policies": lambda client: client.list_policies(Scope="Local")["Policies"],
            "providers": lambda client: client.list_open_id_connect_providers()["OpenIDConnectProviderList"],
            "s3": lambda client: client.list_buckets()["Buckets"],
            "secretsmanager": lambda client: client.list_secrets()["SecretList"],
            "ssm": lambda client: client.describe_parameters()["Parameters"],
            "users": lambda client: [user["UserName"] for user in client.list_users()["Users"]],
        }
        of = {"groups": "ec2", "policies": "iam", "providers": "iam", "users": "iam"}
        for name, call in calls.items():
            found[f"{account} {name}"] = call(aws.client(of.get(name, name), key))
        names = [group["GroupName"] for group in found.pop(f"{account} groups")]  # type: ignore[attr-defined] - of boto3
        found[f"{account} groups"] = sorted(names)
    return found


def fill(aws: Aws) -> None:
    """Make something in every service."""
    iam = aws.client("iam")
    trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]}'
    allow = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    iam.create_role(RoleName="left", AssumeRolePolicyDocument=trust)
    iam.create_policy(PolicyName="left", PolicyDocument=allow)
    iam.create_user(UserName="left")
    iam.create_open_id_connect_provider(Url="https://example.org/left", ClientIDList=["a"], ThumbprintList=["a" * 40])
    aws.client("s3").create_bucket(Bucket="left", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.client("s3").put_object(Bucket="left", Key="k", Body=b"x")
    aws.client("secretsmanager").create_secret(Name="left", SecretString="x")
    aws.client("ssm").put_parameter(Name="/left", Value="x", Type="String")
    aws.client("kms").create_key()
    aws.client("dynamodb").create_table(
        TableName="left",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )
    ec2 = aws.client("ec2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    ec2.create_security_group(GroupName="left", Description="left", VpcId=vpc)
    found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    aws.client("elbv2").create_load_balancer(Name="left", Subnets=[subnet["SubnetId"] for subnet in found])


def test_a_reset_process_is_like_a_fresh_one_and_two_know_nothing_of_each_other(aws: Aws, second: Aws) -> None:
    """EMU-STATE-FRESH, EMU-STATE-RESET, EMU-BASE-SEVERAL."""
    fill(aws)
    beside = inventory(second)
    filled = inventory(aws)

    aws.control.reset()

    assert [name for name in filled if name.startswith(ACCOUNT) and filled[name] == beside[name]] == [f"{ACCOUNT} eks"]
    assert beside[f"{ACCOUNT} users"] == ["administrator"]
    assert inventory(aws) == beside
    key = aws.bootstrap.account(ACCOUNT).administrator
    assert refused(lambda: second.client("sts", key).get_caller_identity())[:2] == (403, "InvalidClientTokenId")


def test_it_listens_where_it_was_told_and_leaves_nothing_behind(second: Aws) -> None:
    """EMU-BASE-BIND, EMU-BASE-STOP: with SIGTERM everything of it ends, and all its files are below one directory."""
    ports = {urlsplit(address).port for address in (second.endpoint, second.imds)}
    variables = Path(f"/proc/{second.process.pid}/environ").read_bytes().decode().split("\0")
    temporary = dict(one.partition("=")[::2] for one in variables if one)["TMPDIR"]
    seen = listening(second.process.pid)
    children = Path(f"/proc/{second.process.pid}/task/{second.process.pid}/children").read_text().split()

    second.process.send_signal(signal.SIGTERM)
    second.process.wait(timeout=60)

    assert seen == {("127.0.0.1", port) for port in ports}
    assert Path(temporary).is_relative_to(second.directory)
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    for port in ports:
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port or 0)):
            pass


OFFLINE = """
import sys, tempfile
from pathlib import Path
from harness.cloud.localstack.environment import Environment
from harness.subject.running_aws import running_aws
with tempfile.TemporaryDirectory() as name, running_aws(Environment(Path(sys.argv[1])), Path(name)) as aws:
    print(aws.client("sts").get_caller_identity()["Account"], len(aws.client("ec2").describe_vpcs()["Vpcs"]) > 0)
"""


def test_it_needs_no_network(localstack_environment: Environment) -> None:
    """EMU-BASE-OFFLINE: it starts and serves where there is loopback and nothing else."""
    unshare = shutil.which("unshare")
    words = [unshare or "", "--user", "--map-root-user", "--net"]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        could_not_run("prerequisite", "a kernel that lets this user make namespaces, and unshare on PATH")
    script = 'ip link set lo up && ! ip route get 192.0.2.1 2>/dev/null && exec "$@"'
    done = subprocess.run(
        [*words, "sh", "-c", script, "sh", sys.executable, "-c", OFFLINE, str(localstack_environment.directory)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=180,
    )

    assert done.stdout.split() == [ACCOUNT, "True"], done.stderr


BROKEN = """
from harness.cloud.eks.clusters import Clusters
from harness.cloud.localstack import serve

def fail(*_):
    raise OSError("EKS is on fire")

Clusters.list = fail
serve.main()
"""


def test_a_service_that_does_not_work_keeps_it_from_being_ready(
    localstack_environment: Environment, tmp_path: Path
) -> None:
    """EMU-BASE-READY, EMU-ERR-NOINTERNAL: the fault names the service, the log its cause, and the answer neither."""
    with (
        pytest.raises(HarnessFault, match=r"the AWS emulator is up, but eks is not: .*The lab failed over the call"),
        running_aws(localstack_environment, tmp_path, arguments=["-c", BROKEN]),
    ):
        pass

    assert "EKS is on fire" in (tmp_path / "log").read_text()


def test_a_service_that_another_layer_serves_keeps_it_from_being_ready(
    localstack_environment: Environment, tmp_path: Path
) -> None:
    """EMU-BASE-PROVIDERS: the fault names what serves it."""
    with (
        pytest.raises(HarnessFault, match=r"AWS services are served by .*'sts': 'default'"),
        running_aws(localstack_environment, tmp_path, PROVIDER_OVERRIDE_STS="default"),
    ):
        pass


RECORDS = """
import base64, hashlib, importlib.metadata, json
odd, count = [], 0
for name in ("localstack-core", "moto-ext", "rolo"):
    for file in importlib.metadata.distribution(name).files or ():
        if file.hash is None:
            continue
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        count += 1
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            odd.append(str(file))
print(json.dumps([count, odd]))
"""


def test_no_file_of_localstack_or_moto_was_changed(localstack_environment: Environment) -> None:
    """EMU-PLUGIN-ENTRYPOINTS: they are as their packages have them."""
    done = subprocess.run(
        [localstack_environment.python, "-c", RECORDS], capture_output=True, text=True, check=True, timeout=60
    )
    count, odd = json.loads(done.stdout)

    assert count > 1000
    assert odd == []
