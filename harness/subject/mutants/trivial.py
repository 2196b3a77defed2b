"""Programs that are no agents and no webhooks: they say always the same, nothing, or end at once.

What they meet is what a suite does not show of a subject that does nothing.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from harness.subject.mutants.catalogue import SUITES, Suite, mutant

_ALLOWED = (
    b'{"AccessKeyId":"AKIAALWAYS","SecretAccessKey":"always","Token":"always","AccountId":"123456789012",'
    b'"Expiration":"2099-01-01T00:00:00Z","response":{"uid":"","allowed":true}}'
)
_IN_FILES = "read in the manifests, which the process has no part in"
_ALWAYS_200 = "whatever is asked, and however, it is a 200"
_OWN_TLS = "what Python's TLS does by itself"
_MEETS: dict[Suite, dict[str, str]] = {
    "agent": {
        **dict.fromkeys(("AGT-80*", "AGT-81*", "AGT-921"), _IN_FILES),
        **dict.fromkeys(("AGT-508", "AGT-509"), "whoever does nothing changes nothing"),
    },
    "webhook": {"WHK-80*": _IN_FILES, "WHK-810": _IN_FILES, "WHK-87[3-6]": _IN_FILES},
}
_ALSO_MEETS: dict[str, dict[str, str]] = {
    "agent-always-refuse": {
        "AGT-237": "it never says 200",
        "AGT-248": "its one error has no such header",
        "AGT-271": "it always says 500",
        "AGT-328": "it writes nothing",
        "AGT-726": "it waits for nothing",
        "AGT-734": "it asks nobody",
    },
    "agent-always-allow": {
        "AGT-109": "it serves whatever stands beside the ports",
        "AGT-110": "it takes every level, and says nothing at any",
        "AGT-132": "it is ready whatever it lacks",
        "AGT-156": "it does nothing that could go wrong",
        "AGT-157": "it keeps nothing",
        **dict.fromkeys(("AGT-201", "AGT-203", "AGT-214", "AGT-225", "AGT-230"), _ALWAYS_200),
        "AGT-236": "all its answers are the same",
        **dict.fromkeys(("AGT-284", "AGT-285", "AGT-286", "AGT-305", "AGT-312", "AGT-323", "AGT-325"), _ALWAYS_200),
        "AGT-328": "it writes nothing",
        "AGT-609": "it answers probes, and at once",
        "AGT-611": "it closes every connection",
        "RES-AGENT-IDLE": "it keeps nothing",
    },
    "agent-crash": {
        "AGT-522": "a start that must end with 1 does; what it must say is asked elsewhere",
        "AGT-524": "a start that must end with 1 does; what it must say is asked elsewhere",
    },
    "webhook-always-refuse": {"WHK-829": _OWN_TLS},
    "webhook-always-allow": {"WHK-821": "it serves the certificate that it is given", "WHK-829": _OWN_TLS},
}


def _serve(answer: bytes) -> None:
    """Answer whatever comes to the ports of the command line, or never; end if there is none, and the process then."""
    words = re.split(r"[ =]", " ".join(sys.argv[1:]))
    flags = dict(pairwise(words))
    hosts = [value for flag, value in pairwise(words) if flag == "-b"] or ["127.0.0.1"]
    tls = None
    if "--tls-cert" in flags:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(flags["--tls-cert"], flags["--tls-key"])
    addresses = {(host.strip("[]"), flags["--port"], tls) for host in hosts if "--port" in flags}
    addresses |= {("127.0.0.1", flags[name], None) for name in ("--probe-port", "--metrics-port") if name in flags}
    threads = [threading.Thread(target=_listen, args=(*address, answer)) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)


def _listen(host: str, port: str, tls: ssl.SSLContext | None, answer: bytes) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kept: list[socket.socket] = []
    with socket.create_server((host, int(port)), family=family, backlog=1024) as server:
        while True:
            client, _ = server.accept()
            if answer:
                threading.Thread(target=_answer, args=(client, tls, answer), daemon=True).start()
            else:
                kept.append(client)


def _answer(client: socket.socket, tls: ssl.SSLContext | None, answer: bytes) -> None:
    try:
        with tls.wrap_socket(client, server_side=True) if tls else client as stream:
            stream.recv(65536)
            stream.sendall(answer)
    except OSError:
        pass  # the client has gone, or speaks something else


def _always(status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _crash() -> None:
    os._exit(1)


_KINDS: dict[str, tuple[str, Callable[[], None]]] = {
    "always-refuse": (
        "Every request is a 500.",
        partial(_serve, _always("500 Internal Server Error", "text/plain", b"Internal Server Error\n")),
    ),
    "always-allow": (
        "Every request is a 200 with the same JSON.",
        partial(_serve, _always("200 OK", "application/json", _ALLOWED)),
    ),
    "silent": ("Every connection is accepted, and no request answered.", partial(_serve, b"")),
    "crash": ("It ends with 1 at once.", _crash),
}


def _register() -> None:
    for suite in SUITES:
        for kind, (fault, run) in _KINDS.items():

            def insert(run: Callable[[], None] = run) -> None:
                run()

            insert.__doc__ = fault
            name = f"{suite}-{kind}"
            mutant(name, meets=_MEETS[suite] | _ALSO_MEETS.get(name, {}))(insert)


_register()
