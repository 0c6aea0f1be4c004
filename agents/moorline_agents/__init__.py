"""The agent kit, the model layer, and the agents that ship."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline_agents.agent import Agent as Agent
    from moorline_agents.checks import Check as Check
    from moorline_agents.checks import CheckFailed as CheckFailed
    from moorline_agents.checks import Pass as Pass
    from moorline_agents.checks import Refuse as Refuse
    from moorline_agents.checks import Replace as Replace
    from moorline_agents.errors import AgentError as AgentError
    from moorline_agents.graph_agent import GraphAgent as GraphAgent
    from moorline_agents.handover import handover_tools as handover_tools
    from moorline_agents.langchain_model import LangChainModel as LangChainModel
    from moorline_agents.mcp_tools import MCPTools as MCPTools
    from moorline_agents.messages import Message as Message
    from moorline_agents.messages import ModelAnswer as ModelAnswer
    from moorline_agents.messages import Usage as Usage
    from moorline_agents.model import ChatModel as ChatModel
    from moorline_agents.model import Model as Model
    from moorline_agents.model import ToolChoice as ToolChoice
    from moorline_agents.model_errors import AnswerCutOff as AnswerCutOff
    from moorline_agents.model_errors import ContextOverflow as ContextOverflow
    from moorline_agents.model_errors import ModelError as ModelError
    from moorline_agents.model_options import AnswerSchema as AnswerSchema
    from moorline_agents.model_options import ModelOptions as ModelOptions
    from moorline_agents.responses_model import ResponsesModel as ResponsesModel
    from moorline_agents.run import AgentDeps as AgentDeps
    from moorline_agents.run import RunContext as RunContext
    from moorline_agents.tools import (
        Connection as Connection,
    )
    from moorline_agents.tools import (
        Tool as Tool,
    )
    from moorline_agents.tools import (
        ToolContext as ToolContext,
    )
    from moorline_agents.tools import (
        ToolRefused as ToolRefused,
    )
    from moorline_agents.tools import (
        tool as tool,
    )
    from moorline_migrations.components import Migrations as Migrations
else:
    from moorline_migrations.lazy import lazy

    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "moorline_agents.agent": ("Agent",),
            "moorline_agents.checks": ("Check", "CheckFailed", "Pass", "Refuse", "Replace"),
            "moorline_agents.errors": ("AgentError",),
            "moorline_agents.graph_agent": ("GraphAgent",),
            "moorline_agents.handover": ("handover_tools",),
            "moorline_agents.messages": ("Message", "ModelAnswer", "Usage"),
            "moorline_agents.langchain_model": ("LangChainModel",),
            "moorline_agents.mcp_tools": ("MCPTools",),
            "moorline_agents.model": ("ChatModel", "Model", "ToolChoice"),
            "moorline_agents.model_errors": ("AnswerCutOff", "ContextOverflow", "ModelError"),
            "moorline_agents.model_options": ("AnswerSchema", "ModelOptions"),
            "moorline_agents.responses_model": ("ResponsesModel",),
            "moorline_agents.run": ("AgentDeps", "RunContext"),
            "moorline_agents.tools": ("Connection", "Tool", "ToolContext", "ToolRefused", "tool"),
            "moorline_migrations.components": ("Migrations",),
        },
    )
