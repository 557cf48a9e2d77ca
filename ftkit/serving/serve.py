"""A model behind the chat interface that clients know: on this machine alone, with a token."""

from __future__ import annotations

import copy
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import transformers

from ftkit import compat
from ftkit.assets import mlflow_store
from ftkit.errors import FtkitError, SettingError
from ftkit.evaluation.generation import end_ids
from ftkit.models.load import load_model
from ftkit.models.model import Model
from ftkit.serving.door import Door
from ftkit.serving.feedback import Feedback

HOST = "127.0.0.1"


class Service:
    """A model that answers over HTTP on this machine, until it is closed.

    url: for clients of the OpenAI interface, with /v1 at its end. token: what they show as their
    key. name: of the model. client(): such a client, of the package openai. page: the address of
    the page for feedback, with the token, for a browser on this machine. As a context manager it
    closes itself.
    """

    def __init__(self, app: Any, name: str, token: str, port: int):
        import uvicorn

        self.name, self.token = name, token
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((HOST, port))
        except OSError as error:
            self._socket.close()
            raise SettingError(f"port {port} of {HOST} cannot be used: {error.strerror}. Give "
                               "another, or port=0 for any that is free.") from error
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(app, log_level="critical", lifespan="on", server_header=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True,
                                        kwargs={"sockets": [self._socket]})
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise FtkitError("the server ended while it was started; see what it printed.")
            time.sleep(0.02)

    def client(self) -> Any:
        """A client of the package openai that is set up for this service."""
        import openai

        return openai.OpenAI(base_url=self.url, api_key=self.token, max_retries=0)

    @property
    def page(self) -> str:
        """The page on which people ask and say what they think; where feedback is kept."""
        return f"{self.url.removesuffix('v1')}#{self.token}"

    def answer(self, prompt: str | list[dict], *, max_new_tokens: int = 64) -> str:
        """The greedy answer to a prompt (a string, or turns), as any client would get it."""
        turns: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        said = self.client().chat.completions.create(
            model=self.name, messages=turns, temperature=0, max_tokens=max_new_tokens)
        return said.choices[0].message.content

    def wait(self) -> None:
        """Return when the service has ended, as after Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(1)

    def close(self) -> None:
        """End the service; what is being answered is answered."""
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Service({self.name!r} at {self.url})"


def serve(model: Model | str, *, name: str = "", port: int = 0, token: str = "",
          feedback: Feedback | str | Path | None = None) -> Service:
    """Serve a chat model on this machine, behind the interface that OpenAI clients speak.

    model: a Model, or what ft.load_model takes. name: by which clients ask for it; by default its
    version in the registry, else its own. port: 0 for any that is free. token: clients' key; by
    default a new one. feedback: where POST /v1/feedback and the page keep what users say
    (Feedback, or the path of its file); without it there are no such addresses.
    The answers are made by `transformers serve`'s own code from the model in memory, greedily
    unless a request asks for a temperature. It listens on 127.0.0.1 only: put a web server with
    encryption before it for others. Needs the extra `serve`.
    Returns a Service, which answers until it is closed. Raises SettingError for a model that is no
    chat model, a port that is taken, a token that is too short, or without the packages.
    """
    one: Any = load_model(model) if isinstance(model, str) else model
    if not one.spec.next_token or not getattr(one.tokenizer, "chat_template", None):
        raise SettingError(f"{one.name} ({one.task}) has no chat template, and a service of "
                           "conversations needs one. Serve an instruction model, such as "
                           "smollm2-135m-instruct.")
    if token and len(token) < 16:
        raise SettingError(f"the token has {len(token)} characters; 16 or more are needed.")
    title = name or str(one.settings.get("version") or one.name)
    title = title.removeprefix(mlflow_store.PREFIX).replace("@", "-").replace(":", "-")
    key = token or secrets.token_urlsafe(32)
    # The same weights with settings of its own: no setting of a checkpoint that the client cannot
    # see (top_k, a penalty), and the end of an answer as ft.generate knows it.
    net = copy.copy(one.net).eval()
    net.generation_config = transformers.GenerationConfig(
        do_sample=False, eos_token_id=sorted(end_ids(one)),
        pad_token_id=one.tokenizer.pad_token_id)
    served = Model(net, one.tokenizer, one.task, one.name)
    try:
        app = compat.chat_app(net, one.tokenizer, title)
        store = feedback if feedback is None or isinstance(feedback, Feedback) else Feedback(
            feedback)
        return Service(Door(app, served, title, key, store), title, key, port)
    except (ImportError, NameError) as error:  # transformers names what it could not import
        raise SettingError(f"serving needs packages that are not installed ({error}). Install them "
                           "with: pip install 'ftkit[serve]'") from error
