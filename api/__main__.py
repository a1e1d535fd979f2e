"""`python -m api`: one web process, from settings to exit."""

from __future__ import annotations

import asyncio
import os
import sys

import click
import structlog

from api.http.server import listen, make_server
from core.errors import ConfigurationError
from core.settings import Settings
from runtime import resolver
from runtime.garbage import keep_start
from runtime.resources import open_resources
from runtime.start import start

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM. The stores are opened before the port listens, and closed after the last response."""
    # The modules of the pages read their texts when they are imported: here a broken language file is a sentence.
    from api.application import open_application  # noqa: PLC0415

    async with open_resources(settings) as resources:
        await resources.clock.begin(resources.db)
        draining = asyncio.Event()
        async with open_application(resources, draining) as app:
            listeners = listen(settings)
            keep_start()
            log.info("api_started", host=settings.host, port=settings.port)
            await make_server(app, settings, draining).serve(listeners)
    log.info("api_stopped")


@click.command(help="Serve the API, the callbacks and the order pages. All of its configuration is in the environment.")
def main() -> None:
    try:
        resolver.run(serve(start(os.environ)))
    except ConfigurationError as error:
        click.echo(f"api: {error.detail}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
