"""A server of a team's own: two processes that count together, started as docs/telemetry.md says."""

import sys

import uvicorn
from fastapi import FastAPI
from starlette.routing import Route

from moorline import Moorline
from moorline.http import router
from moorline.telemetry import Metrics, MetricsApp, shared_folder
from moorline_agents.transport import rule_client

from .app import counted, desk

PROCESSES = 2


def app() -> FastAPI:
    metrics = Metrics()
    moorline = Moorline(agents=[desk], client=lambda: rule_client(counted), observers=[metrics])
    made = FastAPI()
    made.include_router(router(moorline))
    made.router.routes.append(Route("/metrics", MetricsApp(moorline, metrics)))
    return made


if __name__ == "__main__":
    with shared_folder(PROCESSES):
        uvicorn.run(
            "tests.telemetry.own_server:app",
            factory=True,
            port=int(sys.argv[1]),
            workers=PROCESSES,
            timeout_worker_healthcheck=60,  # on a busy machine
        )
