"""What a `Moorline` does for people who have several devices: linking them, and erasing a device or a person."""

from __future__ import annotations

from typing import Literal
from uuid import uuid4

from moorline.context import Call
from moorline.errors import AlreadyLinked, LinkRefused, TooManyTries, UsageError, only_ours
from moorline.link_codes import new_code, read_code
from moorline.part import Part
from moorline_checkpoint.devices import is_uuid
from moorline_checkpoint.messages import IncomingMessage
from moorline_checkpoint.people import LinkedDevice
from moorline_checkpoint.turn import SEPARATOR

__all__ = ["EraseScope", "LinkedDevice", "People"]

EraseScope = Literal["device", "person"]
"""What is erased: a device's address, or a person with all devices."""


class People(Part):
    """The part of `Moorline` that concerns the devices of a person."""

    async def link_code(self, device_id: str) -> str:
        """A code such as `7HKM-2R9Q`, with which another device can join this one's conversation: once, within ten
        minutes. A new code replaces the one before. Whoever has it can read the conversation and go on with it, so show
        it to this device only."""
        with only_ours():
            device_id, code = await self._device(device_id), new_code()
            await self._backend.people.new_code(device_id, code.replace("-", ""))
            return code

    async def link(self, device_id: str, code: str, *, address: str | None = None) -> tuple[LinkedDevice, ...]:
        """Lets the device join the conversation that the code is of, and returns the devices that have it then. Case,
        hyphens, and O for 0 or I and L for 1 do not matter.

        It takes its place in the device's queue: messages before it are answered in the conversation so far, those
        after it in the joined one, and none is lost. The other devices are told with their next reply (`Reply.notice`).
        The device's own conversation so far stays readable: `transcript(device_id, own=True)`.

        Raises `LinkRefused` if the code is wrong, used or expired, `AlreadyLinked` if the device has that conversation,
        and `TooManyTries` once too many codes were wrong: of this device, from the network `address` that your server
        has seen, or in all. The code is used up even if `TurnTimeout` or another error follows.
        """
        with only_ours():
            device_id = await self._device(device_id)
            symbols = read_code(code)
            if symbols is None:
                raise LinkRefused("This is no code: one has eight letters and digits, such as 7HKM-2R9Q.")
            redeemed = await self._backend.people.redeem(device_id, symbols, address=address)
        if redeemed.retry_after is not None:
            raise TooManyTries(redeemed.retry_after)
        if redeemed.same:
            raise AlreadyLinked("The code is of this very conversation; type it on the device that shall join it.")
        if redeemed.conversation is None:
            raise LinkRefused("The code is wrong, or was used, or has expired; let the other device make a new one.")
        await self._join(device_id, redeemed.conversation)
        return await self.devices(device_id)

    async def unlink(self, device_id: str) -> bool:
        """Lets the device leave the conversation that it shares, in its queue's order, and go back to its own, or to a
        new one if others share that. Returns False if it shares none. A message with a `person_id` brings it back."""
        with only_ours():
            device_id = await self._device(device_id)
            conversation = await self._backend.people.leaving(device_id)
        if conversation is None:
            return False
        await self._join(device_id, conversation)
        return True

    async def devices(self, device_id: str) -> tuple[LinkedDevice, ...]:
        """The devices that have the same conversation as this one, itself included, in the order in which they joined;
        none if it is unknown."""
        with only_ours():
            return await self._backend.people.devices(await self._device(device_id))

    async def erase(self, device_id: str, *, scope: EraseScope = "device") -> bool:
        """Removes everything of the device, for good, and makes a running turn stale. Its tokens are revoked, of which
        a keyed hash stays until they would have expired. Returns whether the device was known.

        Of a device that shares a conversation, its link and its own conversation are removed; what it said in the
        shared one stays there without its name, and belongs to those who are left. With `scope="person"` that
        conversation is removed too, with everything of all devices that lead to it.
        """
        if scope not in ("device", "person"):
            raise UsageError("erase: scope must be 'device' or 'person'.")
        with only_ours():
            device_id = await self._device(device_id)
            people = self._backend.people
            erased: tuple[str, ...] = ()
            try:
                if scope == "person":
                    erased = await people.erase_person(device_id)
                else:
                    erased = (device_id,) if await people.erase_device(device_id) else ()
            finally:
                self._led(device_id, *erased)
            for each in {device_id, *erased}:
                if is_uuid(each):  # others never had a token
                    await self._backend.revocations.revoke(each)
            return bool(erased)

    async def _join(self, device_id: str, conversation: str) -> None:
        message = IncomingMessage(
            device_id=device_id,
            message_id=f"{SEPARATOR}{uuid4()}",
            text="",
            resume=None,
            values={},
            on_busy="wait",
            joins=conversation,
        )
        try:
            await self._queue.answer(
                Call(message=message, timeout=self.settings.turn_timeout, on_cancel="release", made_up_id=True)
            )
        finally:
            self._led(device_id, conversation)

    def _led(self, *devices: str) -> None:
        """What this process knows of the devices, and what it has told others, may be out of date."""
        for each in devices:
            self._backend.turns.forget(each)
            self._backend.saver.database.lock_changed(each)
