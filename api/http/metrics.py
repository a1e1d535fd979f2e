"""Metrics of the requests of this process. Labels come from the route table, so their number is bounded."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge, Histogram

from runtime.metrics import CONTENT_TYPE, exposition

__all__ = ["CONTENT_TYPE", "count_request", "exposition", "requests_open", "streams_open"]

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_requests = Counter("nodrop_http_requests", "Requests answered.", ("method", "route", "status"))
_seconds = Histogram("nodrop_http_request_seconds", "From headers read to answer sent.", ("route",), buckets=_BUCKETS_S)
requests_open = Gauge("nodrop_http_requests_open", "Requests being answered now, streams not counted.")
streams_open = Gauge("nodrop_http_streams_open", "Streams of server-sent events open now.")


_counter_of = lru_cache(maxsize=1024)(_requests.labels)
_times_of = lru_cache(maxsize=1024)(_seconds.labels)


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    _counter_of(method, route, str(status)).inc()
    _times_of(route).observe(seconds)
