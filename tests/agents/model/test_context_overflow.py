"""A request that is too long for the model is told apart from all other refusals, by its code or by its words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorline_agents.model import ChatModel
from moorline_agents.model_errors import ContextOverflow, ModelError
from moorline_agents.transport import RawReply, rule_client

TOO_LONG = [
    ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens", 4096, 5000),
    ("the request exceeds the available context size, try increasing it", None, None),
    ("request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it", 4096, 5000),
    ("Context size has been exceeded.", None, None),
    ("Your input exceeds the context window of this model. Please adjust your input and try again.", None, None),
    ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", 4096, 5000),
    ("The prompt (total length 5000) is too long to fit into the model (context length 4096).", 4096, 5000),
    ("max_tokens must be at least 1, got -904.", None, None),
    (
        "You passed 4097 input tokens. However, the model's context length is only 4096 tokens",
        4096,
        4097,
    ),
    (
        "tokens to keep is greater than the context length (n_keep: 5000>= n_ctx: 4096)",
        4096,
        5000,
    ),
    (
        "keep the first 9 tokens when context the overflows. The context length of only 7",
        None,
        None,
    ),
    ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1048576, 1200000),
    ("prompt is too long: 200015 tokens > 200000 maximum", 200000, 200015),
    ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", None, None),
    (
        "Prompt contains 50000 tokens and 0 draft tokens, too large for model with 32768 maximum",
        32768,
        50000,
    ),
    ("`inputs` must have less than 4095 tokens. Given: 5000", None, 5000),
    ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", None, None),
    ("prompt too long; exceeded max context length by 12 tokens", None, None),
    ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", 131072, 537812),
    ("Input is too long for requested model.", None, None),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 4096, 5000),
    ("Your request exceeded model token limit: 262144", 262144, None),
    ("invalid params, context window exceeds limit (2013)", None, None),
    ("input is too large to process. increase the physical batch size", None, None),
    ("Range of input length should be [1, 30720]", None, None),
    ("prompt token count of 130000 exceeds the limit of 128000", 128000, 130000),
]


async def refused(status: int, body: Any) -> ModelError:
    raw = RawReply(
        status=status,
        headers={"content-type": "application/json", "x-should-retry": "false"},
        pieces=(json.dumps(body).encode(),),
    )
    with pytest.raises(ModelError) as raised:
        await ChatModel(client=rule_client(lambda _: raw), model="m", timeout=30).complete(
            [{"role": "user", "content": "Hello?"}]
        )
    return raised.value


@pytest.mark.parametrize(("said", "limit", "asked"), TOO_LONG, ids=[said[:30] for said, *_ in TOO_LONG])
async def test_by_the_words_of_servers_that_have_no_code(said: str, limit: int | None, asked: int | None) -> None:
    for body in ({"error": {"message": said, "code": 400}}, [{"error": {"message": said}}], {"message": said}):
        error = await refused(400, body)
        assert isinstance(error, ContextOverflow)
        assert (error.limit, error.asked) == (limit, asked)
        assert not error.retryable


@pytest.mark.parametrize(
    ("status", "error", "limit"),
    [
        (400, {"code": "context_length_exceeded"}, None),
        (400, {"type": "exceed_context_size_error", "n_prompt_tokens": 5000, "n_ctx": 4096}, 4096),
        (413, {"code": None}, None),
        (429, {"message": "Request too large for gpt on tokens per min (TPM): Limit 30000, Requested 50000."}, None),
    ],
)
async def test_by_code_where_there_is_one(status: int, error: dict[str, Any], limit: int | None) -> None:
    overflow = await refused(status, {"error": {"message": "m", **error}})
    assert isinstance(overflow, ContextOverflow)
    assert overflow.limit == limit


async def test_in_the_middle_of_a_stream() -> None:
    assert isinstance(await refused(200, {}), ModelError)
    chunk = json.dumps({"error": {"message": TOO_LONG[0][0], "code": 400}})
    raw = RawReply(headers={"content-type": "text/event-stream"}, pieces=(f"data: {chunk}\n\n".encode(),))
    with pytest.raises(ContextOverflow):
        await ChatModel(client=rule_client(lambda _: raw), model="m", timeout=30).complete(
            [{"role": "user", "content": "Hello?"}]
        )


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "Unknown parameter: 'messages[1].context'."}),
        (400, {"message": "max_tokens is too large: 100000. This model supports at most 4096 completion tokens"}),
        (400, {"message": "string too long. Expected a string with maximum length 40", "param": "messages[1].id"}),
        (400, {"message": "no", "code": {"a": 1}}),
        (429, {"message": "Rate limit exceeded"}),
        (401, {"message": "Incorrect API key"}),
    ],
)
async def test_nothing_else_is_taken_for_it(status: int, error: dict[str, Any]) -> None:
    assert not isinstance(await refused(status, {"error": error}), ContextOverflow)
