"""nginx's configuration for load balancers: rules in order, patterns, weights, own answers (``controllers.md`` 3.7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from harness.cloud.elbv2.nginx import render
from harness.cloud.elbv2.snapshot import read_snapshot

NAME = "k8s-demo-nginx-380f880b9d-1537930891.eu-west-1.elb.amazonaws.com"
DEFAULT = {
    "Priority": "default",
    "Conditions": [],
    "Actions": [
        {
            "Type": "fixed-response",
            "FixedResponseConfig": {"StatusCode": "404", "ContentType": "text/plain", "MessageBody": ""},
        }
    ],
}


def forward(priority: int, group: str, *paths: str, hosts: Sequence[str] = ()) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = [{"Field": "path-pattern", "PathPatternConfig": {"Values": list(paths)}}]
    if hosts:
        conditions.append({"Field": "host-header", "HostHeaderConfig": {"Values": list(hosts)}})
    actions = [{"Type": "forward", "TargetGroupArn": group}]
    return {"Priority": str(priority), "Conditions": conditions, "Actions": actions}


def balancer(*rules: dict[str, Any], name: str = NAME, is_open: bool = True) -> dict[str, Any]:
    return {"DNSName": name, "Listeners": [{"Port": 80, "IsOpen": is_open, "Rules": [*rules, DEFAULT]}]}


def group(arn: str, *targets: str, is_reachable: bool = True) -> dict[str, Any]:
    entries = [{"Id": target, "Port": 80, "IsReachable": is_reachable} for target in targets]
    return {"TargetGroupArn": arn, "Targets": entries}


def rendered(
    balancers: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]] = (), healthy: Sequence[str] = ()
) -> str:
    snapshot = read_snapshot({"LoadBalancers": balancers, "TargetGroups": groups})
    return render(snapshot, healthy, "10.213.0.16")


def rule_of(text: str, method: str, host: str, path: str) -> str:
    """Return where nginx would lead a request: it takes the first expression that matches."""
    block = re.search(r"map \"\$request_method \$host \$podid_path\" \$podid_rule_0 \{\n(.*?)\n\}", text, re.DOTALL)
    assert block
    default = ""
    for line in block[1].splitlines():
        pattern, target = line.strip().rstrip(";").rsplit(" ", 1)
        if pattern == "default":
            default = target
        elif re.search(pattern.strip('"').removeprefix("~"), f"{method} {host} {path}"):
            return target
    return default


def test_rules_are_tried_by_their_priority() -> None:
    text = rendered(
        [balancer(forward(2, "a", "/*"), forward(1, "b", "/two", "/two/*"))], [group("a", "1"), group("b", "2")]
    )

    assert rule_of(text, "GET", NAME, "/two/x") == rule_of(text, "GET", NAME, "/two")
    assert rule_of(text, "GET", NAME, "/two") != rule_of(text, "GET", NAME, "/three")


def test_paths_are_case_sensitive_and_hosts_are_not() -> None:
    text = rendered([balancer(forward(1, "a", "/Shop/?x", hosts=["*.Example.com"]))], [group("a", "1")])

    assert rule_of(text, "GET", "www.example.com", "/Shop/1x").startswith("podid_group")
    assert rule_of(text, "GET", "www.example.com", "/shop/1x").startswith("fixed")
    assert rule_of(text, "GET", "example.org", "/Shop/1x").startswith("fixed")


def test_only_healthy_targets_get_requests() -> None:
    text = rendered([balancer(forward(1, "a", "/*"))], [group("a", "10.244.0.5", "10.244.0.6")], ["a 10.244.0.6:80"])

    assert re.findall(r"server (10\S+) ", text) == ["10.244.0.6:80"]


def test_all_targets_get_requests_when_none_is_healthy() -> None:
    """ELB fails open."""
    text = rendered([balancer(forward(1, "a", "/*"))], [group("a", "10.244.0.5", "10.244.0.6")])

    assert re.findall(r"server (10\S+) ", text) == ["10.244.0.5:80", "10.244.0.6:80"]


def test_what_security_groups_forbid_is_not_reached() -> None:
    """LBC-PROXY-SG."""
    text = rendered([balancer(forward(1, "a", "/*"))], [group("a", "10.244.0.5", is_reachable=False)])
    closed = rendered([balancer(forward(1, "a", "/*"), is_open=False)], [group("a", "10.244.0.5")])

    assert "10.244.0.5" not in text
    upstream = re.search(r"upstream podid_group_0 \{\n +server (\S+) ", text)
    assert upstream
    stand_in = re.search(rf"listen {re.escape(upstream[1])};\n(.*?)\}}", text, re.DOTALL)
    assert stand_in
    assert "return 504" in stand_in[1]
    assert "return 444;" in closed


def test_a_group_without_targets_answers_503_in_elb_s_name() -> None:
    """LBC-HTTP-ERRORS."""
    text = rendered([balancer(forward(1, "a", "/*"))], [group("a")])

    place = rule_of(text, "GET", NAME, "/")
    block = re.search(rf"location = /\.podid/{place} \{{(.*?)\}}", text, re.DOTALL)
    assert block
    assert "return 503" in block[1]
    assert 'more_set_headers "Server: awselb/2.0";' in block[1]


def test_weights_divide_requests() -> None:
    groups = [{"TargetGroupArn": "a", "Weight": 30}, {"TargetGroupArn": "b", "Weight": 10}]
    rule = {
        "Priority": "1",
        "Conditions": [],
        "Actions": [{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
    }
    text = rendered([balancer(rule)], [group("a", "1"), group("b", "2")])

    assert re.search(r"split_clients \$request_id \$podid_split_0_0 \{\n +75\.00% podid_group_0;\n +\* ", text)


def test_redirects_fill_in_what_the_request_has() -> None:
    redirect = {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}
    rule = {"Priority": "1", "Conditions": [], "Actions": [{"Type": "redirect", "RedirectConfig": redirect}]}

    assert 'return 301 "https://$host:443/$podid_bare_path?$args";' in rendered([balancer(rule)])


def test_texts_of_rules_cannot_leave_their_quotes() -> None:
    fixed = {"StatusCode": "200", "MessageBody": 'a";} $host \\', "ContentType": "text/plain"}
    rule = {
        "Priority": "1",
        "Conditions": [],
        "Actions": [{"Type": "fixed-response", "FixedResponseConfig": fixed}],
    }
    text = rendered([balancer(rule, forward(2, "a", '/";}x'))], [group("a", "1")])

    assert 'return 200 "a\\";} ${podid_dollar}host \\\\";' in text
    assert "/\\x22;\\}x" in text


def test_one_load_balancer_takes_any_host_and_several_only_theirs() -> None:
    alone = rendered([balancer()])
    several = rendered([balancer(), balancer(name="other.eu-west-1.elb.amazonaws.com")])

    assert "listen 10.213.0.16:80 default_server;\n" in alone
    assert f"listen 10.213.0.16:80;\n    server_name {NAME};" in several
    assert several.count("default_server") == 1
