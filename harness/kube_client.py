"""A client of the Kubernetes API whose every call has a limit."""

from __future__ import annotations

from typing import Any, cast

import kubernetes.client

from harness import limits, wait

__all__ = ["UNTIL_CLOSED", "LimitedClient"]

UNTIL_CLOSED = (limits.API_CALL.seconds, 86_400.0)
"""``_request_timeout`` of what is followed: the server may be silent for a day, since the client takes no None."""


class LimitedClient(kubernetes.client.ApiClient):
    """Gives API_CALL to calls that name no time of their own, which a server that froze would hold for ever."""

    def call_api(
        self,
        method: str,
        url: str,
        header_params: Any = None,
        body: Any = None,
        post_params: Any = None,
        _request_timeout: Any = None,
    ) -> Any:
        """Send a request.

        Raises:
            urllib3.exceptions.HTTPError: The server did not answer in time, four times if the call can be repeated.
        """
        seconds = _request_timeout or limits.API_CALL.allowed * wait.scale()
        send: Any = cast("Any", super()).call_api
        return send(method, url, header_params, body, post_params, seconds)
