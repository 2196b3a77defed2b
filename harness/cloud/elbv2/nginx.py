"""nginx's configuration for the load balancers of a lab (``controllers.md`` 3.7).

nginx tells a refused connection (502) from one that nobody answers (504) as ELB does. A request finds its rule through
a ``map``: nginx tries the expressions in their order, so that the order of priorities is the order of lines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from harness.cloud.elbv2.snapshot import Action, Listener, LoadBalancer, Rule, Snapshot, Target, TargetGroup, target_key

__all__ = ["render"]

_UNREACHABLE = "127.84.0.1:504"
"""Stands for targets that security groups keep the load balancer from: a server of nginx's own, which answers with 504.

Where a packet is really dropped depends on the network that the node is in.
"""
_PLACE = "/.podid"
"""Where actions live; requests get there only by rewriting."""
_OWN_PAGES = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
_SIGNED = 'more_set_headers "Server: awselb/2.0";'
_PLACEHOLDERS = {
    "#{protocol}": "$scheme",
    "#{host}": "$host",
    "#{port}": "$server_port",
    "#{path}": "$podid_bare_path",
    "#{query}": "$args",
}

_HEAD = """\
load_module modules/ngx_http_headers_more_filter_module.so;
user www-data;
worker_processes 2;
pid /run/nginx.pid;
error_log stderr warn;
# Connections that an older configuration still serves end with this at the latest.
worker_shutdown_timeout 300s;
events { worker_connections 2048; }
http {
    access_log off;
    server_tokens off;
    server_names_hash_bucket_size 256;
    map_hash_bucket_size 256;
    client_max_body_size 0;
    geo $podid_dollar { default "$"; }
    map "" $podid_nothing { default ""; }
    map $http_upgrade $podid_connection { default upgrade; "" ""; }
    map $request_uri $podid_path { "~^(?<podid_p>[^?]*)" $podid_p; }
    map $request_uri $podid_bare_path { "~^/(?<podid_b>[^?]*)" $podid_b; }
    map $request_id $podid_root { "~^(?<podid_t>.{8})(?<podid_r>.{24})" "Root=1-$podid_t-$podid_r"; }
    map $http_x_amzn_trace_id $podid_trace { default $http_x_amzn_trace_id; "" $podid_root; }
    proxy_http_version 1.1;
    proxy_connect_timeout 10s;
    proxy_read_timeout 60s;
    proxy_send_timeout 60s;
    proxy_next_upstream off;
    proxy_request_buffering off;
    proxy_pass_header Server;
    proxy_pass_header Date;
    proxy_set_header Host $http_host;
    proxy_set_header Connection $podid_connection;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header X-Amzn-Trace-Id $podid_trace;
"""


def render(snapshot: Snapshot, healthy: Collection[str], address: str) -> str:
    """Return the configuration.

    Args:
        snapshot: The load balancers.
        healthy: Targets that are healthy, by :func:`target_key`.
        address: Address to listen at.
    """
    return _HEAD + _Writer(snapshot, healthy, address).text() + "}\n"


@dataclass
class _Writer:
    snapshot: Snapshot
    healthy: Collection[str]
    address: str
    upstreams: dict[str, str] = field(default_factory=dict[str, str])
    """Target group → name of its upstream; none for a group without targets."""

    def text(self) -> str:
        blocks = [_block("server", [f"listen {_UNREACHABLE};", *_own(504, _OWN_PAGES[504])])]
        blocks += [self._upstream(number, group) for number, group in enumerate(self.snapshot.used_groups())]
        pairs = [(one, listener) for one in self.snapshot.load_balancers for listener in one.listeners]
        alone = [port for port in {listener.port for _, listener in pairs} if _count(pairs, port) == 1]
        for number, (balancer, listener) in enumerate(pairs):
            blocks += self._listener(number, balancer, listener, is_alone=listener.port in alone)
        for port in sorted({listener.port for _, listener in pairs} - set(alone)):
            # A name that belongs to none of several load balancers.
            blocks.append(_block("server", [f"listen {self.address}:{port} default_server;", _SIGNED, "return 404;"]))
        return "".join(blocks)

    def _upstream(self, number: int, group: TargetGroup) -> str:
        targets = _serving(group, self.healthy)
        if not targets:
            return ""
        name = self.upstreams[group.arn] = f"podid_group_{number}"
        servers = [
            f"server {f'{target.address}:{target.port}' if target.is_reachable else _UNREACHABLE} max_fails=0;"
            for target in targets
        ]
        return _block(f"upstream {name}", servers)

    def _listener(self, number: int, balancer: LoadBalancer, listener: Listener, *, is_alone: bool) -> list[str]:
        names = [balancer.dns_name, *(f'"~^{_pattern(host.lower())}$"' for host in _hosts(listener))]
        heading = [
            f"listen {self.address}:{listener.port}{' default_server' if is_alone else ''};",
            f"server_name {' '.join(names)};",
        ]
        if not listener.is_open:
            # nginx cannot stay silent; it ends the connection without a word.
            return [_block("server", [*heading, "return 444;"])]
        blocks: list[str] = []
        places: dict[str, list[str]] = {}
        lines: list[str] = []
        for index, rule in enumerate(listener.rules):
            name = f"{number}_{index}"
            target = self._action(name, rule.action, places, blocks)
            is_default = index == len(listener.rules) - 1
            lines.append(f"default {target};" if is_default else f'"~{_expression(rule)}" {target};')
        blocks.append(_block(f'map "$request_method $host $podid_path" $podid_rule_{number}', lines))
        body = [*heading, f"location / {{ rewrite ^ {_PLACE}/$podid_rule_{number} last; }}"]
        body += [_block(f"location = {_PLACE}/{place}", ["internal;", *content]) for place, content in places.items()]
        for code, text in _OWN_PAGES.items():
            body += [f"error_page {code} = @podid_{code};", _block(f"location @podid_{code}", _own(code, text))]
        return [*blocks, _block("server", body)]

    def _action(self, name: str, action: Action, places: dict[str, list[str]], blocks: list[str]) -> str:
        """Add an action's places, and what stands outside of the server; return what leads there."""
        if action.fixed_response is not None:
            places[f"fixed_{name}"] = _fixed(action.fixed_response)
            return f"fixed_{name}"
        if action.redirect is not None:
            places[f"redirect_{name}"] = _redirect(action.redirect)
            return f"redirect_{name}"
        weighted = [(self._group_place(arn, places), weight) for arn, weight in action.forward if weight > 0]
        if len(weighted) < 2:
            return weighted[0][0] if weighted else self._group_place("", places)
        blocks.append(_block(f"split_clients $request_id $podid_split_{name}", _shares(weighted)))
        return f"$podid_split_{name}"

    def _group_place(self, arn: str, places: dict[str, list[str]]) -> str:
        upstream = self.upstreams.get(arn)
        if upstream is None:
            places["podid_empty"] = _own(503, _OWN_PAGES[503])
            return "podid_empty"
        places[upstream] = [f"proxy_pass http://{upstream}$request_uri;"]
        return upstream


def _count(pairs: list[tuple[LoadBalancer, Listener]], port: int) -> int:
    return sum(listener.port == port for _, listener in pairs)


def _serving(group: TargetGroup, healthy: Collection[str]) -> list[Target]:
    """Return the targets that get requests: the healthy ones, or all where none is (fail open)."""
    good = [one for one in group.targets if target_key(group.arn, one.address, one.port) in healthy]
    return good or list(group.targets)


def _hosts(listener: Listener) -> list[str]:
    return list(dict.fromkeys(host for rule in listener.rules for host in rule.hosts))


def _shares(weighted: list[tuple[str, int]]) -> list[str]:
    total = sum(weight for _, weight in weighted)
    shares = [f"{weight * 100 / total:.2f}% {place};" for place, weight in weighted[:-1]]
    return [*shares, f"* {weighted[-1][0]};"]


def _expression(rule: Rule) -> str:
    method = "|".join(map(_pattern, rule.methods)) or "[^ ]+"
    host = "|".join(_pattern(host.lower()) for host in rule.hosts) or "[^ ]*"
    path = "|".join(map(_pattern, rule.paths)) or ".*"
    return f"^(?:{method}) (?:{host}) (?:{path})$"


def _pattern(text: str) -> str:
    """Return an expression for a pattern of ELB's: ``*`` is anything, ``?`` one character."""
    parts = re.split(r"([*?])", text)
    return "".join({"*": ".*", "?": "."}.get(part) or _quotable(re.escape(part)) for part in parts)


def _quotable(text: str) -> str:
    """Return a text as it stands between quotes in nginx's configuration."""
    return text.replace("\\\\", "\\x5C").replace('"', "\\x22")


def _text(value: str) -> str:
    """Return a text as an argument, without a meaning of its own."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    # There is no escape for a dollar.
    return '"' + escaped.replace("$", "${podid_dollar}") + '"'


def _fixed(fixed: Mapping[str, str]) -> list[str]:
    kind = fixed.get("ContentType") or "text/plain"
    status = int(fixed.get("StatusCode") or 200)
    # With a constant empty text nginx would send a page of its own.
    body = _text(fixed["MessageBody"]) if fixed.get("MessageBody") else "$podid_nothing"
    return [f"default_type {_text(kind)};", _SIGNED, f"return {status} {body};"]


def _redirect(redirect: Mapping[str, str]) -> list[str]:
    query = redirect.get("Query", "#{query}")
    protocol = redirect.get("Protocol", "#{protocol}").lower()
    path = redirect.get("Path", "/#{path}")
    target = f"{protocol}://{redirect.get('Host', '#{host}')}:{redirect.get('Port', '#{port}')}{path}"
    code = 301 if redirect.get("StatusCode") == "HTTP_301" else 302
    location = _text(target + (f"?{query}" if query else ""))
    for placeholder, variable in _PLACEHOLDERS.items():
        location = location.replace(placeholder, variable)
    return [_SIGNED, f"return {code} {location};"]


def _own(code: int, text: str) -> list[str]:
    page = f"<html><head><title>{code} {text}</title></head><body><center><h1>{code} {text}</h1></center></body></html>"
    return ["default_type text/html;", _SIGNED, f'return {code} "{page}\\r\\n";']


def _block(heading: str, lines: list[str]) -> str:
    inside = "".join(f"    {line}\n" for text in lines for line in text.rstrip("\n").split("\n"))
    return f"{heading} {{\n{inside}}}\n"
