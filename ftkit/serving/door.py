"""What a request has to be before it reaches a model: who asks, for what, how much, in what form.

A plain ASGI application around another. Whatever is wrong is answered by a sentence and a number of
400 to 499, in the form of OpenAI's errors; what fails behind it, by 500 without its traceback.
"""

from __future__ import annotations

import hmac
import json
import logging
from typing import Any

from ftkit.data.conversations import opened
from ftkit.errors import DataError
from ftkit.models.model import Model
from ftkit.serving import page
from ftkit.serving.feedback import Feedback

_log = logging.getLogger(__name__)
LARGEST = 1 << 20  # bytes of a request
MOST_TOKENS = 1024  # of an answer
DEFAULT_TOKENS = 256  # where a request does not say
TURNS = 200
ROLES = ("system", "user", "assistant")
# What a request may hold, and the numbers it may give; anything else is refused, not ignored.
NUMBERS = {"temperature": (0, 2), "top_p": (0, 1), "max_tokens": (1, MOST_TOKENS),
           "max_completion_tokens": (1, MOST_TOKENS), "seed": (0, 2**31)}
WHOLE = ("max_tokens", "max_completion_tokens", "seed")
FIELDS = ("model", "messages", "stream", *NUMBERS)
CHAT, MODELS, FEEDBACK = "/v1/chat/completions", "/v1/models", "/v1/feedback"
PAGE = "/"  # holds no secret, and what it asks for needs the token


class Refused(Exception):
    """A request that is not answered, with the status and the sentence that say why."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def _error(message, status):
    kind = {401: "authentication_error", 500: "server_error"}.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": status, "param": None}}


FAULT = _error("the model could not answer; the server's log says why.", 500)


class Door:
    """Lets requests in that may be answered; see the top of the file.

    app: the application behind it. model: what its conversations are checked against. name: the
    only model to be asked for. token: clients' key. feedback: a store, or None.
    """

    def __init__(self, app: Any, model: Model, name: str, token: str, feedback: Feedback | None):
        self.app, self.model, self.name = app, model, name
        self.token, self.feedback = token.encode(), feedback

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # no web sockets
            return await send({"type": "websocket.close", "code": 1008})
        begun = failed = False

        async def watched(message):
            """Pass on what the application answers, but not what it says of its own faults."""
            nonlocal begun, failed
            failed = failed or message.get("status", 0) >= 500
            if failed and not begun:
                return
            begun = True
            if message.get("body", b"").startswith(b'data: {"error"'):  # in the midst of a stream
                message = message | {"body": f"data: {json.dumps(FAULT)}\n\n".encode()}
            await send(message)

        try:
            await self.answered(scope, receive, watched)
        except Refused as why:
            await _send(send, why.status, _error(str(why), why.status))
        except Exception:
            _log.exception("a request could not be answered")
            failed = True
        if failed and not begun:
            await _send(send, 500, FAULT)

    async def answered(self, scope, receive, send):
        """Answer one request. Raises Refused where it may not reach the application."""
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", PAGE) and self.feedback:
            return await _sent(send, 200, page.page(self.name), page.HEADERS)
        self._known(dict(scope["headers"]))
        allowed = {CHAT: "POST", MODELS: "GET"} | ({FEEDBACK: "POST"} if self.feedback else {})
        if path not in allowed:
            raise Refused(404, f"{path!r:.80} does not exist; there are {', '.join(allowed)}.")
        if method != allowed[path]:
            raise Refused(405, f"{path} takes {allowed[path]}, not {method}.")
        if path == MODELS:
            one = {"id": self.name, "object": "model", "created": 0, "owned_by": "ftkit"}
            return await _send(send, 200, {"object": "list", "data": [one]})
        raw = await _body(receive)
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            raise Refused(400, "the request is no JSON.") from None
        if not isinstance(body, dict):
            raise Refused(400, "the request is no JSON object.")
        if path == FEEDBACK:
            return await _send(send, 200, {"id": self._said(body)})
        body = {key: value for key, value in body.items() if value is not None}
        self._check(body)
        raw = json.dumps(body).encode()
        inner = {**scope, "headers": [
            *((key, value) for key, value in scope["headers"]
              if key not in (b"content-type", b"content-length", b"transfer-encoding")),
            (b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]}
        await self.app(inner, _replayed(raw, receive), send)

    def _known(self, headers):
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + self.token):
            raise Refused(401, "the token is missing or wrong; send it as a bearer token.")

    def _check(self, body):
        """Refuse what is not a request for an answer that the model can give."""
        if unknown := sorted(set(body) - set(FIELDS)):
            known = ", ".join(FIELDS)
            raise Refused(400, f"{unknown[0]!r:.40} is not supported; there are {known}.")
        if body.get("model", self.name) != self.name:
            raise Refused(404, f"model {body['model']!r:.80} is not served; {self.name!r} is.")
        for field, (low, high) in NUMBERS.items():
            value = body.get(field, low)
            kinds = int if field in WHOLE else (int, float)
            right = isinstance(value, kinds) and not isinstance(value, bool)
            if not (right and low <= value <= high):
                raise Refused(400, f"{field} is {value!r:.40}; {low} to {high} was expected.")
        if not isinstance(body.get("stream", False), bool):
            raise Refused(400, f"stream is {body['stream']!r:.40}; true or false was expected.")
        room, heat = self._room(body.get("messages")), body.get("temperature", 0)
        most = body.get("max_completion_tokens") or body.get("max_tokens")
        if room < (most or 1):
            raise Refused(400, f"the conversation leaves room for {max(room, 0):,} tokens of what "
                               f"the model can read, and {most or 1:,} are asked for.")
        if heat:
            body["generation_config"] = self._sampling()
        else:  # of no meaning for greedy answers
            body.pop("temperature", None)
            body.pop("top_p", None)
        if most is None:
            body["max_tokens"] = min(room, DEFAULT_TOKENS)

    def _room(self, messages):
        """How many tokens an answer may have after a conversation, which is checked."""
        if not isinstance(messages, list) or not 0 < len(messages) <= TURNS:
            raise Refused(400, f"messages has to be a list of 1 to {TURNS} turns.")
        for number, turn in enumerate(messages):
            if not isinstance(turn, dict) or set(turn) - {"role", "content", "name"} or (
                    turn.get("role") not in ROLES or not isinstance(turn.get("content"), str)):
                raise Refused(400, f"turn {number} has to be a role ({', '.join(ROLES)}) and a "
                                   "content, a text.")
        tokenizer = self.model.tokenizer
        try:
            text = opened(messages, tokenizer)
        except DataError as error:
            raise Refused(400, str(error)) from None
        size = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        whole = getattr(self.model.net.config.get_text_config(), "max_position_embeddings", None)
        return (whole or size + MOST_TOKENS) - size

    def _sampling(self):
        """The settings of answers that are drawn: from all tokens, and ended as greedy ones."""
        settings = self.model.net.generation_config
        return json.dumps({"do_sample": True, "top_k": 0, "eos_token_id": settings.eos_token_id,
                           "pad_token_id": settings.pad_token_id})

    def _said(self, body):
        assert self.feedback is not None
        fields = {"messages", "answer", "thumb", "correction"}
        if unknown := sorted(set(body) - fields):
            raise Refused(400, f"{unknown[0]!r:.40} is not supported; there are "
                               f"{', '.join(sorted(fields))}.")
        prompt, answer = body.get("messages"), body.get("answer")
        correction = body.get("correction")
        if not isinstance(prompt, (str, list)) or not isinstance(answer, str) or not isinstance(
                correction, (str, type(None))) or not isinstance(
                body.get("thumb"), (str, type(None))):
            raise Refused(400, "messages (a text, or turns) and answer, thumb and correction "
                               "(texts) were expected.")
        try:
            return self.feedback.add(prompt, answer, thumb=body.get("thumb"),
                                     correction=correction, model=self.name)
        except DataError as error:
            raise Refused(400, str(error)) from None


async def _body(receive):
    """The whole body of a request, of which no more than LARGEST bytes are ever held."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request was cut short.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST:
            raise Refused(413, f"the request has more than {LARGEST:,} bytes.")
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(raw, receive):
    """A receive that gives the body that was read, and then what the client does next."""
    given = False

    async def again():
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": raw, "more_body": False}

    return again


async def _send(send, status, content):
    headers = [(b"content-type", b"application/json")]
    await _sent(send, status, json.dumps(content).encode(), headers)


async def _sent(send, status, body, headers):
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
