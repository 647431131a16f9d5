"""The words and the examples of the porting page; the Python ones are run by a test."""

from __future__ import annotations

from typing import Final

INTRODUCTION: Final = """\
# Coming from TypeScript

Every name that Letta's two TypeScript SDKs export, and every option, field and method of theirs:
what it is here, or why it is not. Names are spelled as Python does (`permissionMode` is
`permission_mode`), times are seconds, options are keyword arguments, and every call exists twice:
`LettaClient` and `Session` wait, `AsyncLettaClient` and `AsyncSession` are awaited. Printed by
`python -m tools.typescript` from `typescript.json`, and held by a test: what a row names exists.
"""

#: A title, the TypeScript, and the Python. The test gives them ``client`` and ``agent_id``.
EXAMPLES: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "Ask once",
        'const result = await client.prompt("What is 2 + 2?", agentId);\n'
        "console.log(result.result);",
        'result = client.prompt("What is 2 + 2?", agent_id)\nprint(result.result)',
    ),
    (
        "Create an agent",
        "const agentId = await client.createAgent({\n"
        '  persona: "I am a librarian.", tags: ["books"],\n});',
        'agent_id = client.create_agent(persona="I am a librarian.", tags=["books"])',
    ),
    (
        "Go on with its default conversation",
        'await using session = client.resumeSession(agentId);\nawait session.send("Hello!");\n'
        "for await (const message of session.stream()) {\n"
        '  if (message.type === "assistant") console.log(message.content);\n}',
        'with client.resume_session(agent_id) as session:\n    session.send("Hello!")\n'
        "    for message in session.stream():\n"
        '        if message.type == "assistant":\n            print(message.content)',
    ),
    (
        "Start a new conversation, and go on with it later",
        'const session = client.createSession(agentId);\nawait session.send("Hello!");\n'
        "// ... read the stream, then keep session.conversationId\n"
        "const later = client.resumeSession(conversationId);",
        'with client.create_session(agent_id) as session:\n    session.run_turn("Hello!")\n'
        "    conversation_id = session.conversation_id\n"
        "later = client.resume_session(conversation_id)",
    ),
    (
        "Print the text as it is written",
        "for await (const message of session.stream()) {\n"
        '  if (message.type !== "stream_event") continue;\n'
        "  const delta = extractStreamTextDelta(message.event);\n"
        '  if (delta?.kind === "assistant") process.stdout.write(delta.text);\n}',
        "from letta_adapters import extract_stream_text_delta\n\n"
        "with client.create_session(agent_id, include_partial_messages=True) as session:\n"
        '    session.send("Tell me a story.")\n    for message in session.stream():\n'
        "        delta = extract_stream_text_delta(message)\n"
        '        if delta and delta.kind == "assistant":\n'
        '            print(delta.text, end="", flush=True)',
    ),
    (
        "Give it a tool that runs here",
        'const weather = {\n  name: "weather", label: "Weather",\n'
        '  description: "The weather of a city.",\n'
        '  parameters: {\n    type: "object",\n'
        '    properties: { city: { type: "string" } }, required: ["city"],\n  },\n'
        '  execute: async (id, args) => ({ content: [{ type: "text", text: "Sunny." }] }),\n};\n'
        "const session = client.createSession(agentId, { tools: [weather] });",
        "def weather(city: str) -> str:\n"
        '    """Return the weather of a city."""\n    return "Sunny."\n\n\n'
        "session = client.create_session(agent_id, tools=[weather])",
    ),
    (
        "Decide about its tool calls",
        "const session = client.createSession(agentId, {\n"
        '  canUseTool: async (name, input) => name === "Bash"\n'
        '    ? { behavior: "deny", message: "No shell." }\n    : { behavior: "allow" },\n});',
        "from letta_adapters import Allow, Deny\n\n\n"
        "def can_use_tool(name, tool_input, context):\n"
        '    return Deny("No shell.") if name == "Bash" else Allow()\n\n\n'
        "session = client.create_session(agent_id, can_use_tool=can_use_tool)",
    ),
    (
        "Send an image",
        "await session.send([\n"
        '  { type: "text", text: "What is this?" }, imageFromFile("cat.png"),\n]);',
        "from letta_adapters import image_from_bytes\n\n"
        "with client.create_session(agent_id) as session:\n"
        '    session.run_turn(["What is this?", image_from_bytes(picture)])',
    ),
    (
        "Read the history",
        "const page = await session.listMessages({ limit: 20 });\n"
        "if (page.hasMore) await session.listMessages({ before: page.nextBefore });",
        "with client.resume_session(agent_id) as session:\n"
        "    page = session.list_messages(limit=20)\n"
        "    if page.has_more:\n        session.list_messages(before=page.next_before)",
    ),
    (
        "Tell a failure",
        "if (!result.success) console.error(result.errorCode, result.errorDetail);",
        'result = client.prompt("Hello!", agent_id)\nif not result.success:\n'
        "    print(result.error_code, result.error_detail)\n"
        "answer = result.raise_for_status().result",
    ),
)
