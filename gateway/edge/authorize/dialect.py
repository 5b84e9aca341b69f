"""The dialects of `/v1/authorize`: the status code is the decision, said so that the proxy understands it.

A proxy asks before it passes a request on. What is charged stands in words of the operator's (see `order`); the
credential is the client's: `Authorization: Bearer`, or `X-Api-Key`.

    forward   Caddy, Traefik, HAProxy: `/v1/authorize/forward?feature=api.calls&quantity=1`. 200 with an empty body,
              or the refusal's own status as problem+json, which these proxies pass on word for word
    nginx     `/v1/authorize/nginx?feature=api.calls&quantity=1`. `auth_request` knows 2xx, 401 and 403 and turns
              all else into 500: other refusals travel as 403. The real status stands in `X-Tallygate-Status`, the
              body is empty (nginx drops it, and its keep-alive with it)
    envoy     `ext_authz` over HTTP sends the client's method, to `path_prefix` and behind it the client's path:
              `path_prefix: /v1/authorize/envoy/api.calls/1`, without a slash at the end; options stand behind
              semicolons, `/tokens/500;mode=hold;ttl_ms=60000`. Only 200 allows; a refusal is passed on as with
              `forward`; on a 5xx Envoy does what `failure_mode_allow` and `status_on_error` say. Its own time-out
              is the deadline, less a tenth for the way back

A proxy may ask twice for one request (nginx does after an internal redirect, Envoy where it retries), so the
proxy's request id is the idempotency key, together with what is charged: the second answer is the first one, hold
and all. It must be the proxy's own: a client that could choose it would pay once and pass for ever. nginx makes one
(`proxy_set_header X-Request-Id $request_id`); Caddy and Traefik make none, and Envoy's is its own with
`use_remote_address: true` only, so there the header is read only if the settings name it.

A hold is told as `X-Tallygate-Hold`, and settled when the response is known (see `settle`). Its id is the
credential of that, so it is for the proxy and not for the client.

`Tallygate-Deadline-Ms` says by when the answer is needed, where the default of the settings is not what the proxy
wants.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from billing_core.errors import Failure
from gateway.admission.order import Order
from gateway.edge.authorize.answer import (
    decided,
    decided_for_envoy,
    decided_for_nginx,
    failed_for_envoy,
    failed_for_nginx,
)
from gateway.edge.authorize.order import order_in_path, order_in_query, words_in_path
from gateway.edge.message import Request
from gateway.edge.refusal.answer import Notices
from gateway.edge.straight.way import Refuse, Write
from gateway.settings import GatewaySettings


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of proxy asks, and what it understands.

    `words` finds the operator's words in a request, `read` what they mean. `request_id` is the header of the
    proxy's own id, `time_out` that in which it says how long it waits; empty: there is none.
    """

    words: Callable[[Request], str]
    read: Callable[[str], Order]
    write: Write
    refuse: Refuse
    request_id: str
    time_out: str = ""


def forward_dialect(settings: GatewaySettings, notices: Notices) -> Dialect:
    """Of Caddy `forward_auth`, Traefik `forwardAuth`, HAProxy's auth-intercept."""
    return Dialect(
        words=_query_of,
        read=order_in_query,
        write=partial(decided, notices=notices),
        refuse=_itself,
        request_id=settings.forward_request_id_header,
    )


def nginx_dialect(settings: GatewaySettings, notices: Notices) -> Dialect:
    """Of nginx `auth_request`; no answer has a body, and none a status that nginx does not know."""
    return Dialect(
        words=_query_of,
        read=order_in_query,
        write=partial(decided_for_nginx, notices=notices),
        refuse=failed_for_nginx,
        request_id=settings.nginx_request_id_header,
    )


def envoy_dialect(settings: GatewaySettings, notices: Notices) -> Dialect:
    """Of Envoy's `ext_authz` over HTTP."""
    return Dialect(
        words=_path_of,
        read=order_in_path,
        write=partial(decided_for_envoy, notices=notices),
        refuse=failed_for_envoy,
        request_id=settings.envoy_request_id_header,
        time_out="x-envoy-expected-rq-timeout-ms",
    )


def _query_of(request: Request) -> str:
    return request.query


def _path_of(request: Request) -> str:
    return words_in_path(request.subject)


def _itself(failure: Failure) -> Failure:
    return failure
