"""`moorline serve`: the app around the router, and the processes that serve it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from moorline.app import find_app
from moorline.errors import ConfigurationError
from moorline.http import guard
from moorline.http.cleaning import cleaning
from moorline.http.device_auth import HEADER, RENEWED, is_loopback
from moorline.http.page import page
from moorline.http.problems import Problem
from moorline.http.routes import router
from moorline.http.settings import HttpSettings
from moorline.logs import show_logs
from moorline.runtime import Moorline

if TYPE_CHECKING:
    from socket import socket

logger = logging.getLogger("moorline.http")

GRACE = 5
"""Seconds beyond `MOORLINE_TURN_TIMEOUT` that a process which is told to stop gives the turns that run."""

API_ONLY = "default-src 'none'; frame-ancestors 'none'"
"""The content security policy of answers that are no page."""

Extension = Callable[[FastAPI, Moorline], None]
"""Adds something of another room to the app of each process, before its `Moorline` is opened; a function at the top of
a module, because processes are started with its name."""


@dataclass(frozen=True, kw_only=True)
class AppFactory:
    """Makes the app of one process, with a `Moorline` of its own."""

    app: str | None
    """The name of the team's `Moorline`."""
    extensions: tuple[Extension, ...] = ()

    def __call__(self) -> FastAPI:
        moorline = find_app(self.app)
        if not logging.getLogger("moorline").handlers:  # a process that was started for this
            show_logs(moorline.settings.log_level)
        app = application(moorline, HttpSettings())
        app.router.lifespan_context = cleaning(app.router.lifespan_context, moorline)
        for extend in self.extensions:
            extend(app, moorline)
        return app


def application(moorline: Moorline, settings: HttpSettings) -> FastAPI:
    """The app that `moorline serve` runs: the router, the page, and problems for what neither of them has."""
    app = FastAPI(
        title="Moorline",
        description="Conversations with agents. Errors are problems (RFC 9457).",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        exception_handlers={HTTPException: _problem, RequestValidationError: _problem, Exception: _problem},
    )
    app.include_router(router(moorline, settings=settings))
    app.include_router(page())
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", HEADER],
            expose_headers=[RENEWED, "Retry-After"],
        )
    if settings.proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.proxies))
    return app


def serve(*, app: str | None, host: str, port: int, workers: int, extensions: Sequence[Extension] = ()) -> None:
    """Serves until it is told to stop, and then finishes the turns that run.

    Raises `ConfigurationError` if the address cannot be used, or if anybody could reach it and claim to be any device;
    and what opening the `Moorline` raises.
    """
    settings, moorline = HttpSettings(), find_app(app)
    _require_auth(settings, host)
    application(moorline, settings)  # a setting that is wrong is told here, once
    asyncio.run(_opened_once(moorline))
    config = Config(
        AppFactory(app=app, extensions=tuple(extensions)),
        factory=True,
        host=host,
        port=port,
        workers=workers,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(moorline.settings.turn_timeout) + GRACE,
    )
    listening = _bound(config)
    address = listening.getsockname()
    processes = "1 process" if workers == 1 else f"{workers} processes"
    logger.info("Serving http://%s:%s in %s.", f"[{host}]" if ":" in host else host, address[1], processes)
    if settings.device_auth in (None, "none"):
        logger.warning(
            "Whoever reaches this address may speak as any device: %s is believed as it is (MOORLINE_DEVICE_AUTH).",
            HEADER,
        )
    with suppress(KeyboardInterrupt):  # Ctrl-C has stopped it, after the turns that ran
        _run(config, listening)


def _run(config: Config, listening: socket) -> None:
    if config.workers == 1:
        Server(config).run(sockets=[listening])
        return
    supervisor = Supervisor(config, sockets=[listening])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise ConfigurationError("A process could not start; its error is above.")


class Supervisor(Multiprocess):
    """Starts the processes, and another one for each that has died.

    Uvicorn's own also pings them and kills those that do not answer in time. That would be the ones that are slow to
    start; and while it waits for one that dies in the meantime, it neither stops nor replaces anything.
    """

    def init_processes(self) -> None:
        self.processes.extend(self._started() for _ in range(self.processes_num))

    def keep_subprocess_alive(self) -> None:
        for place, process in enumerate(self.processes):
            if process.process.is_alive():
                continue
            if self.signal_queue:  # one that ends all of a group reaches the processes too
                return
            process.join()
            if process.exitcode == STARTUP_FAILURE:
                self.should_exit.set()
            if self.should_exit.is_set():
                return
            logger.error("A process died (%s); another one takes its place.", process.exitcode)
            self.processes[place] = self._started()

    def _started(self) -> Process:
        process = Process(self.config, self.sockets)
        # Ctrl-C reaches the processes too, but it is for this one to end them: one that is still starting would end
        # with a traceback. They inherit that the signal is blocked. Starting the tracker would unblock it.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return process


def _require_auth(settings: HttpSettings, host: str) -> None:
    if settings.device_auth in (None, "none") and not is_loopback(host):
        raise ConfigurationError(
            f"At {host} others could reach this server and speak as any device. Set MOORLINE_DEVICE_AUTH to signed or "
            "jwt, or serve 127.0.0.1."
        )


async def _opened_once(moorline: Moorline) -> None:
    """Opens and closes it, so that what keeps it from opening is told once, and an embedded database is migrated before
    several processes open it."""
    async with moorline:
        pass


def _bound(config: Config) -> socket:
    try:
        listening = config.bind_socket()
    except SystemExit:
        raise ConfigurationError(
            f"The address {config.host}:{config.port} cannot be used; see above, or choose another with --host and "
            "--port."
        ) from None
    listening.listen(config.backlog)  # a request that comes before a process is ready waits for it
    return listening


async def _problem(request: Request, error: Exception) -> Response:
    response = Problem.of(error).response()
    # The framework names the methods of one route only, and a path may have several.
    methods = request.app.openapi()["paths"].get(request.scope["path"])
    if methods and "Allow" in response.headers:
        response.headers["Allow"] = ", ".join(sorted(map(str.upper, methods)))
    response.headers.update({**guard.HEADERS, "Content-Security-Policy": API_ONLY})
    return response
