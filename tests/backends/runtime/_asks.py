"""What a git hook or a tool of the user runs: it makes an agent and asks it something.

``python -m tests.backends.runtime._asks DATA_DIR MODEL_URL``; ends with 1 if the answer failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from letta_adapters import LettaClient, Local

if __name__ == "__main__":
    data_dir, url = sys.argv[1:]
    with LettaClient(Local(data_dir=Path(data_dir), openai_compatible={"base_url": url})) as client:
        agent = client.create_agent(name="a", persona="I am P.", model="lmstudio/scripted")
        sys.exit(not client.prompt("hi", agent).success)
