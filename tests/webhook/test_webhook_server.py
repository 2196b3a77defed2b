"""The server with a faulty inside."""

import asyncio
import json
import logging

import aiohttp
import pytest
from podid_webhook.accounts import AccountLookup
from podid_webhook.cluster import ClusterView
from podid_webhook.configuration import Account, NamespacedName, Settings
from podid_webhook.http1 import Handler, Request, Response
from podid_webhook.kube import KubeApi, KubeConfig
from podid_webhook.metrics import Metrics
from podid_webhook.server import ReviewServer, https_handler


class FaultyView(ClusterView):
    def cached_account(self, account: NamespacedName) -> Account | None:
        raise KeyError(f"canary {account}")


def answered(handler: Handler, request: Request) -> Response:
    answer = handler(request)
    assert isinstance(answer, Response)
    return answer


async def answers() -> tuple[Response, Response]:
    view, metrics = FaultyView("eks.amazonaws.com", []), Metrics()
    async with aiohttp.ClientSession() as session:
        lookup = AccountLookup(KubeApi(KubeConfig("http://127.0.0.1:1", None), session), view.accounts, 0)
        reviews = ReviewServer(view, Settings(), metrics, lambda low, _high: low, lookup)
        handler = https_handler(reviews, list, debugging=False)
        pod = {"spec": {"serviceAccountName": "s3-reader", "containers": [{"name": "app"}]}}
        body = json.dumps({"request": {"uid": "u-1", "namespace": "demo", "object": pod}}).encode()
        review = answered(handler, Request("POST", "/mutate", "application/json", body))
        health = answered(handler, Request("GET", "/healthz"))
    assert b'pod_identity_webhook_review_failures{reason="internal"} 1.0' in metrics.text()
    return review, health


def test_internal_error_is_500(caplog: pytest.LogCaptureFixture) -> None:
    """Not a denial, so that failurePolicy decides; it says where, without values, and serves on (WHK-114, WHK-871)."""
    with caplog.at_level(logging.INFO):
        review, health = asyncio.run(answers())

    assert (review.status, review.body, health.status) == (500, b"internal error\n", 200)
    assert "review failed: KeyError at " in caplog.text
    assert "test_webhook_server.py:" in caplog.text
    assert "canary" not in caplog.text
