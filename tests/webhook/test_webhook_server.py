"""The server with a faulty inside."""

import asyncio
import json
import logging

import aiohttp
import pytest
from aiohttp import web
from podid_webhook.accounts import AccountLookup
from podid_webhook.cluster import ClusterView
from podid_webhook.configuration import Account, NamespacedName, Settings
from podid_webhook.kube import KubeApi, KubeConfig
from podid_webhook.metrics import Metrics
from podid_webhook.server import ReviewServer, https_application


class FaultyView(ClusterView):
    def cached_account(self, account: NamespacedName) -> Account | None:
        raise KeyError(f"canary {account}")


async def answers() -> tuple[int, str, int]:
    view, metrics = FaultyView("eks.amazonaws.com", []), Metrics()
    async with aiohttp.ClientSession() as session:
        lookup = AccountLookup(KubeApi(KubeConfig("http://127.0.0.1:1", None), session), view.accounts, 0)
        reviews = ReviewServer(view, Settings(), metrics, lambda low, _high: low, lookup)
        runner = web.AppRunner(https_application(reviews, list, debugging=False))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        pod = {"spec": {"serviceAccountName": "s3-reader", "containers": [{"name": "app"}]}}
        body = json.dumps({"request": {"uid": "u-1", "namespace": "demo", "object": pod}})
        headers = {"Content-Type": "application/json"}
        async with session.post(f"http://{host}:{port}/mutate", data=body, headers=headers) as response:
            status, text = response.status, await response.text()
        async with session.get(f"http://{host}:{port}/healthz") as response:
            health = response.status
        await runner.cleanup()
    assert b'pod_identity_webhook_review_failures{reason="internal"} 1.0' in metrics.text()
    return status, text, health


def test_internal_error_is_500(caplog: pytest.LogCaptureFixture) -> None:
    """Not a denial, so that failurePolicy decides; it says where, without values, and serves on (WHK-114, WHK-871)."""
    with caplog.at_level(logging.INFO):
        status, text, health = asyncio.run(answers())

    assert (status, text, health) == (500, "internal error\n", 200)
    assert "review failed: KeyError at " in caplog.text
    assert "test_webhook_server.py:" in caplog.text
    assert "canary" not in caplog.text
