"""For machines that watch: ``/health`` and ``/metrics``. No patient data, no facility's name."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import PermissionDeniedException
from litestar.plugins.prometheus import PrometheusConfig
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from rso.core.errors import RsoError
from rso.engine.context import Engine
from rso.engine.disk import spool_bytes, volumes
from rso.engine.faults import standing_faults
from rso.engine.set_aside import note_names
from rso.ledger.active import count_active
from rso.ledger.exams import now
from rso.ledger.figures import count_overdue, destination_queues, outbox_states, received_totals
from rso.ledger.holds import open_holds
from rso.web.auth import engine_of, signed_in
from rso.web.client import may_watch

__all__ = ["HANDLERS", "HTTP_METRICS"]

Ask = Request[Any, Any, Any]
_READY_SECONDS = 5.0
HTTP_METRICS = PrometheusConfig(
    app_name="rso",
    prefix="rso_http",
    group_path=True,  # by route: a path holds exam numbers
    buckets=[0.025, 0.1, 0.5, 2.5, 10.0],
    exclude=["/events", "/static"],
)


@get("/health/live")
async def live() -> dict[str, str]:
    """Whether the web process answers; if not, start it again."""
    return {"status": "ok"}


async def _readiness(request: Ask) -> Response[dict[str, Any]]:
    engine = engine_of(request)
    found = {
        "database": await _database(engine.ledger.fetch("SELECT 1 AS one")),
        "space": await asyncio.to_thread(_space, engine),
        "volumes": await asyncio.to_thread(_faults, engine),
    }
    reasons = [reason for said in found.values() for reason in said]
    return Response(
        {
            "status": "unavailable" if reasons else "ok",
            "checks": {name: not said for name, said in found.items()},
            "reasons": reasons,
        },
        status_code=503 if reasons else 200,
    )


async def _database(question: Awaitable[Any]) -> list[str]:
    try:
        await asyncio.wait_for(question, _READY_SECONDS)
    except (RsoError, TimeoutError):
        return ["the database does not answer"]
    return []


def _space(engine: Engine) -> list[str]:
    try:
        found = volumes(engine.settings)
    except OSError as exc:
        return [f"the room on a volume cannot be seen: {exc.strerror}"]
    return [
        f"{volume.holds}: {volume.free >> 20} MB free, nothing is taken in below"
        f" {volume.low_water >> 20} MB"
        for volume in found
        if volume.free <= volume.low_water
    ]


def _faults(engine: Engine) -> list[str]:
    try:
        return [str(fault) for fault in standing_faults(engine.settings.data_dir)]
    except OSError as exc:
        return [f"the folder of faults cannot be read: {exc.strerror}"]


@get("/health")
async def health(request: Ask) -> Response[dict[str, Any]]:
    """Whether the web process, its database and its disk can take work."""
    return await _readiness(request)


@get("/health/ready")
async def ready(request: Ask) -> Response[dict[str, Any]]:
    """The same, for those who ask for it by this name; if not, send people elsewhere."""
    return await _readiness(request)


class _Totals(Collector):
    """Totals that the ledger keeps, as counters."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def collect(self) -> list[Metric]:
        """Instances and bytes by channel."""
        instances = CounterMetricFamily(
            "rso_received_instances", "Instances taken in", labels=["channel"]
        )
        size = CounterMetricFamily("rso_received_bytes", "Bytes taken in", labels=["channel"])
        for row in self._rows:
            instances.add_metric([row["channel"]], row["instances"])
            size.add_metric([row["channel"]], row["bytes"])
        return [instances, size]


def _gauge(registry: CollectorRegistry, name: str, words: str, *labels: str) -> Gauge:
    return Gauge(name, words, labels, registry=registry)


@get("/metrics")
async def metrics(request: Ask) -> Response[bytes]:
    """Figures for Prometheus, for machines within and people who see the whole site."""
    if not may_watch(request):
        me = await signed_in(request)
        me.require("coordinator", "auditor")
        if me.person.facilities is not None:
            raise PermissionDeniedException("figures of the whole site")
    engine = engine_of(request)
    ledger, at = engine.ledger, now()
    registry = CollectorRegistry()
    exams = _gauge(registry, "rso_exams", "Active exams by status", "status")
    for (_, status), count in (await count_active(ledger)).items():
        exams.labels(status).inc(count)
    overdue = _gauge(registry, "rso_exams_overdue", "Open exams past their turnaround target")
    overdue.set(await count_overdue(ledger, None, at))
    held = await open_holds(ledger, None)
    _gauge(registry, "rso_open_holds", "Holds that wait for a person").set(held["count"])
    _gauge(registry, "rso_open_hold_alarms", "Holds with an alarm").set(held["alarms"])
    outbox = _gauge(
        registry, "rso_outbox", "Hooks and messages of the last day, by state", "kind", "state"
    )
    for row in await outbox_states(ledger, at - timedelta(days=1)):
        outbox.labels(row["kind"], row["state"]).set(row["n"])
    await _destinations(engine, registry)
    await _disk(engine, registry)
    registry.register(_Totals(await received_totals(ledger)))
    return Response(
        generate_latest(registry) + generate_latest(REGISTRY),
        media_type="text/plain; version=0.0.4",
    )


async def _destinations(engine: Engine, registry: CollectorRegistry) -> None:
    items = _gauge(
        registry,
        "rso_delivery_items",
        "Instances that wait or stopped",
        "destination",
        "state",
    )
    failures = _gauge(
        registry, "rso_destination_failures", "Faults in a row of the line to it", "destination"
    )
    broken = _gauge(
        registry, "rso_destination_breaker_open", "1 while nothing is tried", "destination"
    )
    paused = _gauge(registry, "rso_destination_paused", "1 while a person paused it", "destination")
    success = _gauge(
        registry, "rso_destination_last_success_seconds", "Unix time of it", "destination"
    )
    at = now()
    for row in await destination_queues(engine.ledger, None):
        code = row["code"]
        for state in ("pending", "stopped"):
            items.labels(code, state).set(row[state])
        failures.labels(code).set(row["failures"])
        broken.labels(code).set(row["open_until"] is not None and row["open_until"] > at)
        paused.labels(code).set(bool(row["paused"]))
        if row["last_success_at"] is not None:
            success.labels(code).set(row["last_success_at"].timestamp())


async def _disk(engine: Engine, registry: CollectorRegistry) -> None:
    free = _gauge(registry, "rso_volume_free_bytes", "Room left on a volume", "holds")
    size = _gauge(registry, "rso_volume_size_bytes", "Size of a volume", "holds")
    low = _gauge(registry, "rso_volume_low_water_bytes", "Nothing is taken in below it", "holds")
    for volume in await asyncio.to_thread(volumes, engine.settings):
        free.labels(volume.holds).set(volume.free)
        size.labels(volume.holds).set(volume.size)
        low.labels(volume.holds).set(volume.low_water)
    failed = _gauge(registry, "rso_faults", "What is not trusted or waits; /health says what")
    failed.set(len(await asyncio.to_thread(_faults, engine)))
    aside = _gauge(registry, "rso_set_aside", "Acknowledged, and refused by the database")
    aside.set(len(await asyncio.to_thread(note_names, engine.settings.data_dir)))
    held = _gauge(registry, "rso_spool_bytes", "Taken by the spool, space laid out ahead included")
    held.set(await asyncio.to_thread(spool_bytes, engine.settings))


HANDLERS = [health, live, ready, metrics]
