"""What is answered on the two ports: reviews and probes over HTTPS, metrics over plain HTTP."""

import json
import logging
import time
from collections.abc import Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from msgspec.structs import asdict

from podid_webhook.accounts import AccountLookup
from podid_webhook.cluster import ClusterView, Readiness
from podid_webhook.configuration import Draw, NamespacedName, Settings, irsa_account, mutate_pod
from podid_webhook.http1 import Handler, Request, Response
from podid_webhook.jsontext import Json, encode
from podid_webhook.logs import log_decision
from podid_webhook.metrics import Metrics
from podid_webhook.mutation import Mutation
from podid_webhook.review import RefusedReviewError, Review, decode_review

MAX_BODY_BYTES = 8 * 1024**2
"""The API server sends at most its own request limit of 3 MiB, twice for an update."""

_JSON = "application/json"
_WRONG_CONTENT_TYPE = b"Invalid Content-Type, expected `application/json`\n"

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

    def mutate(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        """Handle ``POST /mutate`` and measure it; at once, unless the service account has to be waited for."""
        started = time.perf_counter()
        answer = self._handle(request)
        if isinstance(answer, Response):
            self._measure(request, answer, started)
            return answer
        return self._measured(request, answer, started)

    async def _measured(self, request: Request, answer: Coroutine[Any, Any, Response], started: float) -> Response:
        response = await answer
        self._measure(request, response, started)
        return response

    def _measure(self, request: Request, response: Response, started: float) -> None:
        self._metrics.observe_request(request.method, "/mutate", response.status, (time.perf_counter() - started) * 1e6)

    def _handle(self, request: Request) -> Response | Coroutine[Any, Any, Response]:
        if request.content_type != _JSON:
            self._metrics.failures.add("content_type")
            return Response(415, _WRONG_CONTENT_TYPE)
        if request.refusal:
            self._metrics.failures.add("too_large")
            return _refusal(request)
        try:
            review = decode_review(request.body)
            account = NamespacedName(review.namespace, review.pod.service_account)
            found = self._is_known(account)
            if not found and self._lookup.grace_period > 0:
                return self._answer_after_wait(review, account)
            return self._answer(review, found=found)
        except Exception as error:  # noqa: BLE001 - see _failed
            return self._failed(error)

    async def _answer_after_wait(self, review: Review, account: NamespacedName) -> Response:
        """Wait for an account that nothing is known of (WHK-727)."""
        try:
            await self._lookup.wait_for(account)
            return self._answer(review, found=self._is_known(account))
        except Exception as error:  # noqa: BLE001 - see _failed
            return self._failed(error)

    def _answer(self, review: Review, *, found: bool) -> Response:
        mutation = mutate_pod(review.pod, review.namespace, self._view, self._settings, self._draw)
        answer = review.answer(mutation)
        if mutation is not None:
            self._metrics.pods.add(mutation.method)
        elif not found:
            self._metrics.missing_accounts.add()
        _log_outcome(review, mutation, timed_out=not found and self._lookup.grace_period > 0)
        return Response(200, answer, _JSON)

    def _failed(self, error: Exception) -> Response:
        """Refuse a review that cannot be read; anything else is our fault.

        Then 500 leaves the pod to the failurePolicy, while a denial would block it (WHK-114).
        """
        if isinstance(error, RefusedReviewError):
            self._metrics.failures.add("refused")
            _log.warning("review refused: %s", error)
            return Response(200, error.answer(), _JSON)
        self._metrics.failures.add("internal")
        # Neither message nor traceback: they can hold values of the pod.
        _log.error("review failed: %s at %s", type(error).__name__, _origin(error))
        return Response(500, b"internal error\n")

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
    # !r: names in a direct review are whatever the sender likes, line breaks included.
    pod = review.pod
    log_decision(
        _log,
        f"review: namespace={review.namespace!r} pod={pod.display_name!r} "
        f"serviceAccount={pod.service_account!r} outcome={outcome!r}",
    )


def _origin(error: BaseException) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}" if traceback else "an unknown place"


def https_handler(reviews: ReviewServer, readiness: Readiness, *, debugging: bool) -> Handler:
    """Build what answers on the HTTPS port: reviews and probes (WHK-101, WHK-841, WHK-842, WHK-850)."""

    def mutate(request: Request) -> Response | Coroutine[Any, Any, Response]:
        return reviews.mutate(request) if request.method == "POST" else Response(405, b"405: Method Not Allowed\n")

    def readyz(_request: Request) -> Response:
        if reasons := readiness():
            return Response(503, f"not ready: {'; '.join(reasons)}\n".encode())
        return Response(200, b"ok")

    handlers: dict[str, Handler] = {"/mutate": mutate, "/healthz": lambda _: Response(200, b"ok"), "/readyz": readyz}
    if debugging:
        denial: Json = {"response": {"uid": "", "allowed": False, "status": {"message": "Test deny message"}}}
        handlers["/debug/alpha/deny"] = lambda _: Response(200, encode(denial), _JSON)
        handlers["/debug/alpha/500"] = lambda _: Response(500, b"Test error\n")
    return _by_path(handlers)


def metrics_handler(metrics: Metrics, view: ClusterView, *, debugging: bool) -> Handler:
    """Build what answers on the metrics port (WHK-843, WHK-850)."""

    def scrape(_request: Request) -> Response:
        return Response(200, metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    def cache(_request: Request) -> Response:
        accounts = {f"{key.namespace}/{key.name}": asdict(value) for key, value in view.accounts.accounts.items()}
        return Response(200, json.dumps(accounts).encode(), _JSON)

    def clear(_request: Request) -> Response:
        view.accounts.accounts.clear()
        return Response(200, b"ok")

    handlers: dict[str, Handler] = {"/metrics": scrape}
    if debugging:
        handlers |= {"/debug/alpha/cache": cache, "/debug/alpha/cache/clear": clear}
    return _by_path(handlers)


def _by_path(handlers: Mapping[str, Handler]) -> Handler:
    def handle(request: Request) -> Response | Coroutine[Any, Any, Response]:
        handler = handlers.get(request.path)
        if handler is None or (request.refusal and request.refusal != HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            return _refusal(request) if request.refusal else Response(404, b"404: Not Found\n")
        return handler(request)

    return handle


def _refusal(request: Request) -> Response:
    status = HTTPStatus(request.refusal)
    return Response(status, f"{status.value}: {status.phrase}\n".encode())
