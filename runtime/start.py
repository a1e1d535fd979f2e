"""The start of a process: its settings, and its logs with them."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from core.settings import Settings, find_misspelt, read_settings, require
from runtime.logs import configure_logs
from runtime.resources import REQUIRED_SETTINGS

log = structlog.get_logger()


def start(environ: Mapping[str, str], *needed: str) -> Settings:
    """The settings of a process that needs these beside those that every one needs.

    Raises:
        ConfigurationError: names every variable that cannot be read, or every one that is missing.
    """
    settings = read_settings(environ)
    require(settings, *REQUIRED_SETTINGS, *needed)
    configure_logs(settings.log_level)
    for name, wanted in find_misspelt(environ):
        log.warning("variable_unknown", name=name, wanted=wanted)
    return settings
