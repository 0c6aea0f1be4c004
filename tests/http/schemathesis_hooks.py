"""For schemathesis in the mode `signed`: each of its requests comes from a device of its own, so that those that it
erases are not missed."""

# ruff: noqa: ARG002 - as schemathesis calls them

import os
from typing import Any

import httpx2
import schemathesis


@schemathesis.auth(refresh_interval=None)
class NewDevice:
    def get(self, case: schemathesis.Case[Any], context: schemathesis.AuthContext) -> str:
        return str(httpx2.post(f"{os.environ['SERVED']}/v1/devices").json()["token"])

    def set(self, case: schemathesis.Case[Any], data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"
