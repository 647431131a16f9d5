"""Serve an agent from FastAPI: a conversation for each user, answers as server-sent events.

    python examples/fastapi_service.py            (serves on a free port of this machine)
    python examples/fastapi_service.py --visit    (a program visits it, and it ends)

One client serves all requests, as long as the application lives. Needs ``fastapi`` and ``uvicorn``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from _agent import backend
from _serve import serve
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from letta_adapters import AsyncLettaClient, LettaError, Local
from letta_adapters.testing.scripted_model import ModelRequest, Reply

USERS = {"token-of-ada": "ada", "token-of-bob": "bob"}  # in place of your own log-in


class Question(BaseModel):
    """The body of a question."""

    text: str = Field(min_length=1, max_length=10_000)


class Desk:
    """The agent, and the conversation of each user."""

    def __init__(self, client: AsyncLettaClient, agent_id: str) -> None:
        self.client = client
        self.agent_id = agent_id
        # One machine's memory; an application on several keeps this in its database.
        self.conversations: dict[str, str] = {}

    async def answer(self, user: str, text: str) -> AsyncIterator[str]:
        """Yield the events of one turn in the user's own conversation."""
        known = self.conversations.get(user)
        session = (
            self.client.resume_session(known)
            if known
            else self.client.create_session(self.agent_id)
        )
        async with session:
            await session.send(text)
            async for message in session.stream():
                if message.type == "init":
                    self.conversations[user] = message.conversation_id
                elif message.type in ("assistant", "error", "result"):
                    yield f"event: {message.type}\ndata: {json.dumps(message.to_dict())}\n\n"


def user_of(authorization: Annotated[str, Header()] = "") -> str:
    """Return who asks, by the token in the header."""
    user = USERS.get(authorization.removeprefix("Bearer "))
    if user is None:
        raise HTTPException(401, "Send the header `Authorization: Bearer <token>`.")
    return user


def make_app(spec: Local | None) -> FastAPI:
    """Return the application; its client is opened and closed with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncLettaClient(spec) as client:
            agent_id = await client.create_agent(name="helper", persona="I answer briefly.")
            app.state.desk = Desk(client, agent_id)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/questions")
    async def ask(
        question: Question, request: Request, user: Annotated[str, Depends(user_of)]
    ) -> StreamingResponse:
        # A client that hangs up ends the generator, and with it the session and its turn.
        answer = request.app.state.desk.answer(user, question.text)
        return StreamingResponse(answer, media_type="text/event-stream")

    @app.exception_handler(LettaError)
    async def failed(_: Request, error: LettaError) -> JSONResponse:
        return JSONResponse({"error": error.code, "message": str(error)}, status_code=502)

    return app


def stand_in(request: ModelRequest, asked: str) -> Reply:
    before = sum(message.get("role") == "user" for message in request.messages)
    return Reply(f"You said: {asked}" if before < 2 else f"And now you said: {asked}")


async def visit(port: int) -> None:
    """Ask as two users do, each in a conversation of their own."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
    ) as browser:
        print("nobody:", (await browser.post("/questions", json={"text": "Hi"})).status_code)
        for token, text in [("ada", "Hello"), ("bob", "Good morning"), ("ada", "Again")]:
            head = {"Authorization": f"Bearer token-of-{token}"}
            answer = await browser.post("/questions", json={"text": text}, headers=head)
            for line in answer.text.splitlines():
                data: dict[str, Any] = json.loads(line[6:]) if line.startswith("data: ") else {}
                if data.get("type") == "assistant":
                    print(f"{token}: {data['content']}")


if __name__ == "__main__":
    greeting = "POST http://127.0.0.1:{port}/questions, as `Bearer token-of-ada`"
    with backend(stand_in) as spec:
        asyncio.run(serve(make_app(spec), greeting, visit if "--visit" in sys.argv else None))
