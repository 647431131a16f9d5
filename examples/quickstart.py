"""Talk with a persistent agent: two turns, streaming.

    python examples/quickstart.py

It is live with LETTA_API_KEY (Letta Cloud) or LETTA_BASE_URL (a server of your own; set LETTA_MODEL
to choose its model); with neither it replays a recording. Run it twice: the second run finds the
agent that the first one made.
"""

from __future__ import annotations

from _replay import connect

from letta_adapters import LettaClient, Session, extract_stream_text_delta

TAG = "letta-adapters-quickstart"


def find_or_create_agent(client: LettaClient) -> str:
    """Return the agent with our tag, from an earlier run or made now."""
    for agent in client.agents.list(tags=[TAG], limit=1):
        print(f"Found the agent {agent['name']!r} of an earlier run.")
        return agent["id"]
    print("Creating an agent.")
    return client.create_agent(
        name="quickstart",
        persona="I am a helpful assistant. I remember what people tell me.",
        human="I know nothing about the user yet.",
        tags=[TAG],
    )


def say(session: Session, text: str) -> None:
    """Run one turn: send, then print each message as it comes."""
    print(f"\n> {text}")
    session.send(text)
    writing = None
    for message in session.stream():
        delta = extract_stream_text_delta(message)
        if delta is not None:
            if writing != delta.kind:
                print(f"\n  [{delta.kind}, streaming] ", end="")
                writing = delta.kind
            print(delta.text, end="", flush=True)
        elif message.type == "init":
            print(f"  [init] {message.agent_id} / {message.conversation_id} on {message.backend}")
        elif message.type == "result":
            status = "ok" if message.success else f"failed: {message.error_detail}"
            used = message.usage
            print(f"  [result] {status}; {used.prompt_tokens} + {used.completion_tokens} tokens")
        elif message.type != "stream_event":
            writing = None
            print(f"\n  [{message.type}] {getattr(message, 'content', message)!r}")


def main(client: LettaClient) -> None:
    """Run two turns with one agent; the second needs the first."""
    agent_id = find_or_create_agent(client)
    with client.create_session(agent_id, include_partial_messages=True) as session:
        say(session, "My name is Ada and I like astronomy.")
        say(session, "What is my name, and what do I like?")


if __name__ == "__main__":
    with connect("quickstart") as client:
        main(client)
