"""Receiving the files of a call: fetched where they come as addresses, and kept before the message is."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace

from moorline.context import Call
from moorline.errors import StoreUnavailable
from moorline.file_links import Fetcher, Room
from moorline.files import Brought, File, content_of
from moorline.settings import Settings
from moorline_checkpoint.files import FileContent, Files


@dataclass(frozen=True, kw_only=True)
class Receiving:
    """Receives files for any number of calls."""

    files: Files
    fetcher: Fetcher
    settings: Settings

    async def receive(self, call: Call) -> Call:
        """The call, with what its message refers to kept. A message that came before refers to what came with it then,
        and nothing is fetched again.

        Raises `InvalidMessage` for a file that is not accepted, before any is kept, and `FileUnavailable`.
        """
        message = call.message
        # Whether it can be answered without the store is decided when the message gets there.
        passing = self.settings.on_store_down == "stateless"
        with suppress(StoreUnavailable) if passing else nullcontext():
            known = None if call.made_up_id else await self.files.of_message(message.device_id, message.message_id)
            if known is not None:
                return replace(call, message=replace(message, files=known))
        contents = await self._contents(call.files)
        refs = tuple(content.ref for content in contents)
        kept_in = None
        with suppress(StoreUnavailable) if passing else nullcontext():
            kept_in = await self.files.place(message.device_id, person_id=message.person_id)
            await self.files.keep(kept_in, contents)
        brought = Brought(contents=contents, kept_in=kept_in)
        return replace(call, message=replace(message, files=refs), brought=brought)

    async def _contents(self, files: tuple[File, ...]) -> tuple[FileContent, ...]:
        here = sum(len(file.data) for file in files if file.data is not None)
        room = Room(self.settings.files_total_max - here)
        tasks = [asyncio.create_task(self._data(file, room)) for file in files]
        try:
            data = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        pairs = zip(files, data, strict=True)
        return tuple(
            # Its name is the person's, and an error may be logged.
            content_of(file, each, self.settings, called=f"File {number}" if len(files) > 1 else "A file")
            for number, (file, each) in enumerate(pairs, start=1)
        )

    async def _data(self, file: File, room: Room) -> bytes:
        if file.data is not None:
            return file.data
        return await self.fetcher.fetch(file.url or "", room)
