"""Moorline keeps every conversation moored to its agent.

from moorline import run_manager
reply = await run_manager("I want to schedule", {"device_id": device_id, "message_id": webhook_id})
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline.context import Resume as Resume
    from moorline.context import TurnContext as TurnContext
    from moorline.default import run_manager as run_manager
    from moorline.default import stream_manager as stream_manager
    from moorline.errors import (
        AgentError as AgentError,
    )
    from moorline.errors import (
        AlreadyLinked as AlreadyLinked,
    )
    from moorline.errors import (
        AnswerCutOff as AnswerCutOff,
    )
    from moorline.errors import (
        BadExport as BadExport,
    )
    from moorline.errors import (
        CheckFailed as CheckFailed,
    )
    from moorline.errors import (
        ConfigurationError as ConfigurationError,
    )
    from moorline.errors import (
        ContextOverflow as ContextOverflow,
    )
    from moorline.errors import (
        ErasureFailed as ErasureFailed,
    )
    from moorline.errors import (
        ExportBroken as ExportBroken,
    )
    from moorline.errors import (
        FileUnavailable as FileUnavailable,
    )
    from moorline.errors import (
        InternalError as InternalError,
    )
    from moorline.errors import (
        InvalidContext as InvalidContext,
    )
    from moorline.errors import (
        InvalidDeviceID as InvalidDeviceID,
    )
    from moorline.errors import (
        InvalidMessage as InvalidMessage,
    )
    from moorline.errors import (
        InvalidMetadata as InvalidMetadata,
    )
    from moorline.errors import (
        LinkRefused as LinkRefused,
    )
    from moorline.errors import (
        MessageSetAside as MessageSetAside,
    )
    from moorline.errors import (
        ModelError as ModelError,
    )
    from moorline.errors import (
        MoorlineError as MoorlineError,
    )
    from moorline.errors import (
        NothingWaits as NothingWaits,
    )
    from moorline.errors import (
        SchemaMismatch as SchemaMismatch,
    )
    from moorline.errors import (
        SessionBusy as SessionBusy,
    )
    from moorline.errors import (
        StaleTurn as StaleTurn,
    )
    from moorline.errors import (
        StateDamaged as StateDamaged,
    )
    from moorline.errors import (
        StoreUnavailable as StoreUnavailable,
    )
    from moorline.errors import (
        ToolRefused as ToolRefused,
    )
    from moorline.errors import (
        TooManyTries as TooManyTries,
    )
    from moorline.errors import (
        TransactionError as TransactionError,
    )
    from moorline.errors import (
        TransactionTooLong as TransactionTooLong,
    )
    from moorline.errors import (
        TurnCancelled as TurnCancelled,
    )
    from moorline.errors import (
        TurnNotKept as TurnNotKept,
    )
    from moorline.errors import (
        TurnTimeout as TurnTimeout,
    )
    from moorline.errors import (
        UsageError as UsageError,
    )
    from moorline.events import AgentStarted as AgentStarted
    from moorline.events import Asked as Asked
    from moorline.events import CheckRefused as CheckRefused
    from moorline.events import Event as Event
    from moorline.events import HandedOver as HandedOver
    from moorline.events import ModelFinished as ModelFinished
    from moorline.events import ModelStarted as ModelStarted
    from moorline.events import SessionChanged as SessionChanged
    from moorline.events import TextDelta as TextDelta
    from moorline.events import TextWithdrawn as TextWithdrawn
    from moorline.events import ToolFinished as ToolFinished
    from moorline.events import ToolStarted as ToolStarted
    from moorline.events import TurnFailed as TurnFailed
    from moorline.events import TurnFinished as TurnFinished
    from moorline.events import TurnStarted as TurnStarted
    from moorline.events import UsageReported as UsageReported
    from moorline.files import File as File
    from moorline.files import Image as Image
    from moorline.reply import Interrupt as Interrupt
    from moorline.reply import Reply as Reply
    from moorline.router import Router as Router
    from moorline.runtime import Moorline as Moorline
    from moorline.settings import Settings as Settings
    from moorline.texts import Texts as Texts
    from moorline_agents.agent import Agent as Agent
    from moorline_agents.checks import Pass as Pass
    from moorline_agents.checks import Refuse as Refuse
    from moorline_agents.checks import Replace as Replace
    from moorline_agents.confirmation import Confirmation as Confirmation
    from moorline_agents.files import ReceivedFile as ReceivedFile
    from moorline_agents.graph_agent import GraphAgent as GraphAgent
    from moorline_agents.handover import handover_tools as handover_tools
    from moorline_agents.langchain_model import LangChainModel as LangChainModel
    from moorline_agents.mcp_tools import MCPTools as MCPTools
    from moorline_agents.model import ChatModel as ChatModel
    from moorline_agents.model import Model as Model
    from moorline_agents.model_options import ModelOptions as ModelOptions
    from moorline_agents.responses_model import ResponsesModel as ResponsesModel
    from moorline_agents.tools import ToolContext as ToolContext
    from moorline_agents.tools import tool as tool
    from moorline_checkpoint.devices import validate_device_id as validate_device_id
    from moorline_checkpoint.files import FileRef as FileRef
    from moorline_checkpoint.queue import DeadLetter as DeadLetter
    from moorline_checkpoint.saver import DeviceCheckpointer as DeviceCheckpointer
    from moorline_checkpoint.serializer import StrictSerializer as StrictSerializer
    from moorline_checkpoint.sessions import Session as Session
    from moorline_checkpoint.transcripts import TranscriptEntry as TranscriptEntry
    from moorline_migrations.components import Migrations as Migrations
else:
    from moorline_migrations.lazy import lazy

    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "moorline.context": ("Resume", "TurnContext"),
            "moorline.default": ("run_manager", "stream_manager"),
            "moorline.errors": (
                "AgentError",
                "AlreadyLinked",
                "BadExport",
                "CheckFailed",
                "ConfigurationError",
                "AnswerCutOff",
                "ContextOverflow",
                "ErasureFailed",
                "ExportBroken",
                "FileUnavailable",
                "InternalError",
                "InvalidContext",
                "InvalidDeviceID",
                "InvalidMessage",
                "InvalidMetadata",
                "LinkRefused",
                "MessageSetAside",
                "ModelError",
                "MoorlineError",
                "NothingWaits",
                "SchemaMismatch",
                "SessionBusy",
                "StaleTurn",
                "StateDamaged",
                "StoreUnavailable",
                "ToolRefused",
                "TooManyTries",
                "TransactionError",
                "TransactionTooLong",
                "TurnCancelled",
                "TurnNotKept",
                "TurnTimeout",
                "UsageError",
            ),
            "moorline.events": (
                "AgentStarted",
                "Asked",
                "CheckRefused",
                "Event",
                "HandedOver",
                "ModelFinished",
                "ModelStarted",
                "SessionChanged",
                "TextDelta",
                "TextWithdrawn",
                "ToolFinished",
                "ToolStarted",
                "TurnFailed",
                "TurnFinished",
                "TurnStarted",
                "UsageReported",
            ),
            "moorline.files": ("File", "Image"),
            "moorline.reply": ("Interrupt", "Reply"),
            "moorline.router": ("Router",),
            "moorline.runtime": ("Moorline",),
            "moorline.settings": ("Settings",),
            "moorline.texts": ("Texts",),
            "moorline_agents.agent": ("Agent",),
            "moorline_agents.checks": ("Pass", "Refuse", "Replace"),
            "moorline_agents.confirmation": ("Confirmation",),
            "moorline_agents.files": ("ReceivedFile",),
            "moorline_agents.graph_agent": ("GraphAgent",),
            "moorline_agents.handover": ("handover_tools",),
            "moorline_agents.langchain_model": ("LangChainModel",),
            "moorline_agents.mcp_tools": ("MCPTools",),
            "moorline_agents.model": ("ChatModel", "Model"),
            "moorline_agents.model_options": ("ModelOptions",),
            "moorline_agents.responses_model": ("ResponsesModel",),
            "moorline_agents.tools": ("ToolContext", "tool"),
            "moorline_checkpoint.devices": ("validate_device_id",),
            "moorline_checkpoint.files": ("FileRef",),
            "moorline_checkpoint.queue": ("DeadLetter",),
            "moorline_checkpoint.saver": ("DeviceCheckpointer",),
            "moorline_checkpoint.serializer": ("StrictSerializer",),
            "moorline_checkpoint.sessions": ("Session",),
            "moorline_checkpoint.transcripts": ("TranscriptEntry",),
            "moorline_migrations.components": ("Migrations",),
        },
    )
