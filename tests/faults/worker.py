"""A worker: a process that sends messages to devices through its own runtime until it is told to stop.

    python -m tests.faults.worker '{"name": "wa1", "dsn": "postgresql://…", "log": "/…/wa1.jsonl", …}'

It runs its errands all at once, wanders over its devices until it gets SIGTERM, finishes what it has begun, does its
last operations, which show that all is well again, and ends. Its log has every outcome.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from random import Random

import anyio._backends._asyncio  # noqa: F401 - as the next
import openai.resources.chat  # noqa: F401 - imported lazily elsewhere; a forked worker already has it

import moorline.execution
import moorline.waiters
from moorline import Moorline, Settings
from moorline.errors import AgentError, MoorlineError, SessionBusy
from moorline.reply import Reply
from moorline_agents.transport import rule_client
from moorline_checkpoint import turns
from moorline_checkpoint.watching import LockWatcher
from tests.faults.checker import LAST
from tests.faults.failpoints import Failpoint, Failpoints, WatchedTurns
from tests.faults.history import Log
from tests.faults.model import agents, rules

VERBS = ("say", "say", "say", "say", "ring", "chime", "book", "pass echo", "pass scheduling", "bye")
"""What a wandering worker says, each with its share."""

BUSY = ("wait", "wait", "wait", "wait", "merge", "reject")


@dataclass(frozen=True, kw_only=True)
class Errand:
    """A message to send; several workers may have the same one."""

    device: str
    message: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a worker is told, as JSON."""

    name: str
    """Letters, then digits; its messages are called `m-<name>-<number>`."""
    dsn: str
    log: str
    seed: int = 1
    statement_cache_size: int = 100
    lease: float = 15.0
    """Seconds; the product's other times are scaled with it."""
    errands: tuple[Errand, ...] = ()
    devices: tuple[str, ...] = ()
    """The devices to wander over; if there are none, it waits after its errands."""
    tasks: int = 3
    """How many messages it has in flight at once while it wanders."""
    thinking: float = 0.01
    """Seconds that its model takes on average."""
    day: str = "2030-01-01"
    """The day on which it books."""
    erase: tuple[str, ...] = ()
    """Devices to erase before anything else."""
    erases: bool = False
    """Whether it erases devices now and then while it wanders."""
    recovers: bool = False
    """Whether it finishes what others leave behind, on any device, until it is told to stop."""
    failpoints: tuple[Failpoint, ...] = ()
    pool_max: int = 5
    redis_url: str | None = None
    timeout: float = 60.0

    def to_json(self) -> str:
        """Its text for the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Orders:
        """The orders in a text that `to_json` made."""
        told = json.loads(text)
        told["errands"] = tuple(Errand(**errand) for errand in told["errands"])
        told["failpoints"] = tuple(Failpoint(**point) for point in told["failpoints"])
        return cls(**{**told, "devices": tuple(told["devices"]), "erase": tuple(told["erase"])})


class Watched:
    """What follows locks, with a clock: nothing in a turn may wait for it."""

    def __init__(self, watcher: LockWatcher) -> None:
        self._watcher = watcher
        self.longest = 0.0

    def lock_changed(self, device_id: str) -> None:
        began = time.monotonic()
        self._watcher.lock_changed(device_id)
        self.longest = max(self.longest, time.monotonic() - began)


def chance_of(seed: int, *names: str) -> Random:
    """A random generator of its own, the same in each run with this seed."""
    return Random(" ".join((str(seed), *names)))  # noqa: S311 - repeatable, no secret


class Worker:
    """Its tasks share a runtime, a log and a random generator."""

    def __init__(self, orders: Orders, moorline: Moorline, watched: WatchedTurns, log: Log) -> None:
        self._orders = orders
        self._moorline = moorline
        self._turns = watched
        self._log = log
        self._chance = chance_of(orders.seed, orders.name)
        self._numbers = count(1)
        self.enough = asyncio.Event()

    async def work(self) -> None:
        """Does everything it was ordered to do."""
        self._log.write("ready")
        for device in self._orders.erase:
            await self._erase(device)
        await asyncio.gather(*(self._deliver(errand, on_busy="wait") for errand in self._orders.errands))
        if self._orders.devices:
            await asyncio.gather(*(self._wander() for _ in range(self._orders.tasks)))
        while self._orders.recovers and not self.enough.is_set():
            await self._moorline.recover()
            await asyncio.sleep(0.05)
        await self.enough.wait()
        for _ in range(LAST):
            await self._deliver(self._errand("say"), on_busy="wait")
        self._log.write("finished")

    async def _wander(self) -> None:
        while not self.enough.is_set():
            if self._orders.erases and self._chance.random() < 0.1:
                await self._erase(self._device())
            else:
                await self._deliver(self._errand(self._chance.choice(VERBS)), on_busy=self._chance.choice(BUSY))

    async def _deliver(self, errand: Errand, *, on_busy: str) -> None:
        """Sends a message until it is answered or set aside."""
        key = {"device": errand.device, "message": errand.message}
        while True:
            self._log.write("invoke", **key, text=errand.text)
            context = {"device_id": errand.device, "message_id": errand.message, "on_busy": on_busy}
            try:
                reply = await self._moorline.run(errand.text, {**context, "timeout": self._orders.timeout})
            except SessionBusy as busy:
                self._log.write("fail", **key, error=_told(busy))
                on_busy = "wait"
            except AgentError as error:
                if "set aside" in str(error):
                    self._log.write("dead", **key, error=_told(error))
                    return
                self._fail(errand, error)
            except MoorlineError as error:
                self._fail(errand, error)
            else:
                self._log.write("ok", **key, **_answer(reply))
                return
            await asyncio.sleep(0.02 + 0.06 * self._chance.random())

    def _fail(self, errand: Errand, error: MoorlineError) -> None:
        known = (errand.device, errand.message) not in self._turns.committing
        self._log.write("fail" if known else "info", device=errand.device, message=errand.message, error=_told(error))

    async def _erase(self, device: str) -> None:
        self._log.write("erase", device=device)
        await self._moorline.erase(device)
        self._log.write("erased", device=device)

    def _errand(self, verb: str) -> Errand:
        message = f"m-{self._orders.name}-{next(self._numbers)}"
        quarter = self._chance.randrange(96)
        argument = f" {self._orders.day}T{quarter // 4:02}:{quarter % 4 * 15:02}" if verb == "book" else ""
        return Errand(device=self._device(), message=message, text=f"{message} {verb}{argument}")

    def _device(self) -> str:
        return self._chance.choice(self._orders.devices or (f"{self._orders.name}-own",))


def run(orders_json: str) -> None:
    """Runs a worker from start to end."""
    orders = Orders.of_json(orders_json)
    log = Log(Path(orders.log), orders.name)
    try:
        asyncio.run(_work(orders, log))
    except BaseException:
        log.write("crashed", error=traceback.format_exc())
        raise


async def _work(orders: Orders, log: Log) -> None:
    shorten(orders.lease)
    chance = chance_of(orders.seed, orders.name, "thinking")
    failpoints = Failpoints(orders.failpoints, log)
    model = failpoints.model(rules, thinking=lambda: chance.expovariate(1 / orders.thinking))

    def outside(device: str, message: str, key: str, idempotent: bool) -> None:
        log.write("outside", device=device, message=message, key=key, idempotent=idempotent)

    settings = Settings(
        database_url=orders.dsn,
        statement_cache_size=orders.statement_cache_size,
        pool_max=orders.pool_max,
        redis_url=orders.redis_url,
    )
    team = [failpoints.agent(agent) for agent in agents(outside=outside)]
    async with Moorline(settings, agents=team, client=lambda: rule_client(model)) as moorline:
        opened = moorline._require_open()
        watched = WatchedTurns(
            opened.backend.saver.database, default_ttl=settings.default_session_ttl, log=log, failpoints=failpoints
        )
        moorline._opened = replace(
            opened,
            backend=replace(opened.backend, turns=watched),
            queue=replace(opened.queue, turns=watched, execution=replace(opened.queue.execution, turns=watched)),
        )
        database = opened.backend.saver.database
        followed = [Watched(watcher) for watcher in database.lock_watchers]
        database.lock_watchers = followed
        worker = Worker(orders, moorline, watched, log)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.enough.set)
        await worker.work()
        log.write("waited", seconds=max((each.longest for each in followed), default=0.0))


def shorten(lease: float) -> None:
    """Scales all times of the product with the lease."""
    turns.WAITER_SECONDS *= lease / turns.LEASE_SECONDS
    moorline.waiters.RENEW *= lease / turns.LEASE_SECONDS
    vars(moorline.execution)["HEARTBEAT"] *= lease / turns.LEASE_SECONDS
    turns.LEASE_SECONDS = lease


def _told(error: BaseException) -> str:
    """The error with its causes."""
    return repr(error) if error.__cause__ is None else f"{error!r} from {_told(error.__cause__)}"


def _answer(reply: Reply) -> dict[str, object]:
    recovered = [(earlier.turn_no, str(earlier)) for earlier in reply.recovered]
    return {"turn_no": reply.turn_no, "reply": str(reply), "replayed": reply.replayed, "recovered": recovered}


if __name__ == "__main__":
    run(sys.argv[1])
