"""The live suite: tests that check this package's contracts against *your* Letta.

::

    LETTA_BASE_URL=http://localhost:8283 pytest --pyargs letta_adapters.testing.live

runs five contracts (how a session opens; send and stream; backfill and pages; listing during a
stream; the life of a tool call), each with the async client and the sync one. It needs
``pytest-asyncio``; without ``LETTA_API_KEY`` or ``LETTA_BASE_URL`` everything is skipped.

``LETTA_AGENT_ID`` and ``LETTA_CONVERSATION_ID`` name the agent and conversation to talk to (else an
agent is made, and deleted afterwards), ``LETTA_MODEL`` its model, and
``LETTA_LIVE_TEST_TIMEOUT_MS`` limits each test (180000). With ``LETTA_LIVE_EMBEDDED=1`` the
contracts run through Letta Code on this machine as well (``Local(api=Rest())``); a server of your
own needs Redis for that. ``--letta-record=rewrite`` writes sanitized recordings of all of it.
"""
