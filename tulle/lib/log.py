"""One way to log: structlog, fields instead of sentences, JSON or console."""

import logging
import sys
from typing import Literal

import structlog

Format = Literal["console", "json"]


def configure(*, level: str = "info", form: Format = "console") -> None:
    """Set up the process's log on stderr; called once by each composition root."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one component."""
    made: structlog.typing.FilteringBoundLogger = structlog.get_logger(component=name)
    return made
