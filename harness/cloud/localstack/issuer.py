"""The public side of the clusters' token issuers: discovery document and keys (API-324)."""

from __future__ import annotations

import json
import re

from harness.cloud.eks import ClusterError
from harness.cloud.localstack.emulator import Emulator
from harness.cloud.sigv4 import RawRequest

__all__ = ["serve_issuer"]

_PATH = re.compile(r"/id/(?P<id>[0-9A-Za-z]+)/(?P<document>keys|\.well-known/openid-configuration)")


def serve_issuer(emulator: Emulator, raw: RawRequest) -> tuple[int, str]:
    """Return status and JSON of an unsigned request to ``oidc.eks.<region>.amazonaws.com``."""
    found = _PATH.fullmatch(raw.path)
    cluster = emulator.eks.clusters.with_issuer_id(found["id"]) if found else None
    if found is None or cluster is None or raw.method not in {"GET", "HEAD"}:
        return 404, json.dumps({"message": "Not Found"})
    if found["document"] == "keys":
        try:
            return 200, json.dumps(emulator.clusters.jwks(cluster, is_fresh=True))
        except ClusterError:
            return 503, json.dumps({"message": "Service Unavailable"})
    return 200, json.dumps(
        {
            "issuer": cluster.issuer,
            "jwks_uri": f"{cluster.issuer}/keys",
            "authorization_endpoint": "urn:kubernetes:programmatic_authorization",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["sub", "iss"],
        }
    )
