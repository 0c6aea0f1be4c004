"""The names of spans and attributes, all of them in one place.

Those of `gen_ai` are as in https://github.com/open-telemetry/semantic-conventions-genai at `GEN_AI_COMMIT`
(model/gen-ai/spans.yaml and registry.yaml), where they may still change; those of `db` and `error` are stable, in
https://github.com/open-telemetry/semantic-conventions. What neither has is called `moorline`.
"""

GEN_AI_COMMIT = "7e7e4e763354b505b8e1f76512f17a1977b00f70"

CHAT = "chat"
INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
CONVERSATION = "gen_ai.conversation.id"
AGENT = "gen_ai.agent.name"
REQUEST_MODEL = "gen_ai.request.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TOOL = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL = "gen_ai.tool.call.id"

# Opt-in: what people, models and tools say.
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"

DB_SYSTEM = "db.system.name"
DB_SUMMARY = "db.query.summary"
DB_BATCH_SIZE = "db.operation.batch.size"

ERROR = "error.type"

TURN = "turn"
TURN_NUMBER = "moorline.turn.number"
TURN_ATTEMPT = "moorline.turn.attempt"
TURN_MESSAGES = "moorline.turn.messages"
TURN_REPLAYED = "moorline.turn.replayed"
TURN_RECOVERED = "moorline.turn.recovered"
TURN_ASKED = "moorline.turn.asked"
TURN_DEGRADED = "moorline.turn.degraded"
TOOL_REFUSED = "moorline.tool.refused"
TOOL_ASKED = "moorline.tool.asked"
