"""Logs: one JSON object a line on standard error, without patient data or control characters."""

import logging
import os
import sys
import warnings
from collections.abc import MutableMapping
from typing import Any

import structlog

__all__ = ["configure_logs"]

_PRIVATE = frozenset({"patient_name", "patient_id", "birth_date", "name", "password", "token"})


def _guard(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in _PRIVATE & event.keys():
        event[key] = "(withheld)"
    return event


def configure_logs(role: str = "") -> None:
    """Configure structlog and the libraries' logging for this process."""
    level = os.environ.get("RSO_LOG", "INFO").upper()
    number = logging.getLevelNamesMapping().get(level, logging.INFO)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _guard,
            # JSON escapes control characters, so no value can forge a line.
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # pynetdicom and pydicom log and warn with the values they dislike: a patient's data, or what
    # a stranger sends. A level would not do, for pydicom sets its own when it is imported.
    for noisy in ("pynetdicom", "pydicom"):
        logger = logging.getLogger(noisy)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", category=UserWarning)
    structlog.contextvars.bind_contextvars(process=role or "cli")
