"""The two HTTP servers: reviews and probes over HTTPS, metrics over plain HTTP."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from podid_webhook.accounts import AccountLookup
from podid_webhook.cluster import ClusterView, Readiness
from podid_webhook.configuration import Draw, NamespacedName, Settings, irsa_account, mutate_pod
from podid_webhook.jsontext import Json, encode
from podid_webhook.metrics import Metrics
from podid_webhook.mutation import Mutation
from podid_webhook.review import RefusedReviewError, Review, decode_review

MAX_BODY_BYTES = 8 * 1024**2
"""The API server sends at most its own request limit of 3 MiB, twice for an update."""

_WRONG_CONTENT_TYPE = "Invalid Content-Type, expected `application/json`\n"

_log = logging.getLogger(__name__)


class ReviewServer:
    """Answers reviews from what is known of the cluster."""

    def __init__(
        self,
        view: ClusterView,
        settings: Settings,
        metrics: Metrics,
        draw: Draw,
        lookup: AccountLookup,
    ) -> None:
        """Bring the parts together.

        Args:
            view: What is known of the cluster.
            settings: The flags.
            metrics: Counts reviews.
            draw: Randomness for the life of Pod Identity tokens.
            lookup: Waits for a service account that is in no cache.
        """
        self._view = view
        self._settings = settings
        self._metrics = metrics
        self._draw = draw
        self._lookup = lookup

    async def mutate(self, request: web.Request) -> web.StreamResponse:
        """Handle ``POST /mutate`` and measure it."""
        started = time.perf_counter()
        try:
            response = await self._handle(request)
        except web.HTTPException as error:
            self._measure(request, error.status, started)
            raise
        self._measure(request, response.status, started)
        return response

    def _measure(self, request: web.Request, status: int, started: float) -> None:
        self._metrics.observe_request(request.method, "/mutate", status, (time.perf_counter() - started) * 1e6)

    async def _handle(self, request: web.Request) -> web.Response:
        if request.headers.get("Content-Type") != "application/json":
            self._metrics.failures.add("content_type")
            return web.Response(status=415, text=_WRONG_CONTENT_TYPE)
        if (request.content_length or 0) > MAX_BODY_BYTES:
            self._metrics.failures.add("too_large")
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
        # Without a length read() stops at client_max_size, with the same error.
        body = await request.read()
        try:
            answer = await self.review(body)
        except RefusedReviewError as refused:
            self._metrics.failures.add("refused")
            _log.warning("review refused: %s", refused)
            answer = refused.answer()
        except Exception as error:  # noqa: BLE001 - 500 leaves the pod to the failurePolicy; a denial would block it
            self._metrics.failures.add("internal")
            # Neither message nor traceback: they can hold values of the pod.
            _log.error("review failed: %s at %s", type(error).__name__, _origin(error))
            return web.Response(status=500, text="internal error\n")
        return web.Response(body=answer, content_type="application/json")

    async def review(self, body: bytes) -> bytes:
        """Answer one review.

        Raises:
            RefusedReviewError: If it cannot be read.
        """
        review = decode_review(body)
        account = NamespacedName(review.namespace, review.pod.service_account)
        found = await self._found(account)
        mutation = mutate_pod(review.pod, review.namespace, self._view, self._settings, self._draw)
        answer = review.answer(mutation)
        if mutation is not None:
            self._metrics.pods.add(mutation.method)
        elif not found:
            self._metrics.missing_accounts.add()
        _log_outcome(review, mutation, timed_out=not found and self._lookup.grace_period > 0)
        return answer

    async def _found(self, account: NamespacedName) -> bool:
        """Wait for an account that nothing is known of; tell whether it is known in the end."""
        if self._is_known(account):
            return True
        await self._lookup.wait_for(account)
        return self._is_known(account)

    def _is_known(self, account: NamespacedName) -> bool:
        # A listed pair is not kept waiting (WHK-212), nor an account that is cached without a role (WHK-729).
        view = self._view
        return (
            view.has_identity(account)
            or view.cached_account(account) is not None
            or (irsa_account(account, view) is not None)
        )


def _log_outcome(review: Review, mutation: Mutation | None, *, timed_out: bool) -> None:
    if mutation is None:
        outcome = "timed out" if timed_out else "no configuration"
    elif mutation.changes_spec:
        outcome = f"mutated ({mutation.method})"
    else:
        outcome = f"already complete ({mutation.method})"
    # %r: names in a direct review are whatever the sender likes, line breaks included.
    _log.info(
        "review: namespace=%r pod=%r serviceAccount=%r outcome=%r",
        review.namespace,
        review.pod.display_name,
        review.pod.service_account,
        outcome,
    )


def _origin(error: BaseException) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}" if traceback else "an unknown place"


def https_application(reviews: ReviewServer, readiness: Readiness, *, debugging: bool) -> web.Application:
    """Build the application of the HTTPS port: reviews and probes (WHK-101, WHK-841, WHK-842, WHK-850)."""

    async def readyz(_request: web.Request) -> web.Response:
        if reasons := readiness():
            return web.Response(status=503, text="not ready: " + "; ".join(reasons) + "\n")
        return web.Response(text="ok")

    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/mutate", reviews.mutate)
    application.router.add_get("/healthz", _answer(web.Response, text="ok"))
    application.router.add_get("/readyz", readyz)
    if debugging:
        denial: Json = {"response": {"uid": "", "allowed": False, "status": {"message": "Test deny message"}}}
        application.router.add_route(
            "*", "/debug/alpha/deny", _answer(web.Response, body=encode(denial), content_type="application/json")
        )
        application.router.add_route("*", "/debug/alpha/500", _answer(web.Response, status=500, text="Test error\n"))
    return application


def metrics_application(metrics: Metrics, view: ClusterView, *, debugging: bool) -> web.Application:
    """Build the application of the metrics port (WHK-843, WHK-850)."""

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def cache(_request: web.Request) -> web.Response:
        accounts = {f"{key.namespace}/{key.name}": asdict(value) for key, value in view.accounts.accounts.items()}
        return web.json_response(accounts)

    async def clear(_request: web.Request) -> web.Response:
        view.accounts.accounts.clear()
        return web.Response(text="ok")

    application = web.Application()
    application.router.add_get("/metrics", scrape)
    if debugging:
        application.router.add_get("/debug/alpha/cache", cache)
        application.router.add_get("/debug/alpha/cache/clear", clear)
    return application


def _answer(
    build: Callable[..., web.Response], **arguments: object
) -> Callable[[web.Request], Awaitable[web.Response]]:
    # A response object can be sent only once.
    async def handler(_request: web.Request) -> web.Response:
        return build(**arguments)

    return handler
