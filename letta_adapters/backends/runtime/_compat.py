"""Internal: keep all that depends on parts of Letta Code that are not public.

The list at the end names each of them, the version it was seen in, and what happens without it.
What the preloads (``*.cjs``) need of it stands in ``_compat.cjs`` as well, because Node reads that.
Public, and so not here, are the command line (``letta server --help``), the variables that name an
API or a provider's key, and the App Server's frames, whose types the wheel publishes
(``@letta-ai/letta-code/app-server-protocol``).
"""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from letta_adapters._utils.private_parts import PrivatePart

# -- the wheel --------------------------------------------------------------------------------

PACKAGE: Final = "letta_code"
PAYLOAD: Final = "_payload"
# These are in the payload.
NODE: Final = "bin/node"
APP: Final = "app/letta.js"
MANIFEST: Final = "manifest.json"
# What precedes the address in the line by which a server tells that it listens.
SOCKET_LINE: Final = "WebSocket: "

# -- variables of the environment -------------------------------------------------------------

STATE_DIR: Final = "LETTA_LOCAL_BACKEND_DIR"
MEMORY_URL: Final = "LETTA_MEMFS_BASE_URL"
MODEL_SERVER: Final = "LMSTUDIO_BASE_URL"
MODEL_SERVER_KEY: Final = "LMSTUDIO_API_KEY"
INSTALLED_BY: Final = "LETTA_CODE_DISTRIBUTION"
# Letta Code as an application reports usage, updates itself, runs timers and asks for a keychain;
# embedded in another application it must not.
QUIET: Final = {
    "LETTA_CODE_TELEM": "0",
    "DO_NOT_TRACK": "1",
    "DISABLE_AUTOUPDATER": "1",
    "LETTA_DISABLE_CRON_SCHEDULER": "1",
    "LETTA_DISABLE_MODS": "1",
    "LETTA_DISABLE_SESSION_PERSIST": "1",
    "LETTA_SKIP_KEYCHAIN_CHECK": "1",
}

# -- directories and files --------------------------------------------------------------------

# In the home: settings, transcripts and logs. The state of agents is in it unless it is elsewhere.
LETTA: Final = ".letta"
STATE: Final = "lc-local-backend"
AGENTS: Final = "agents"
CONVERSATIONS: Final = "conversations"
MESSAGES: Final = "messages.jsonl"
MEMORIES: Final = "memfs"
MEMORY: Final = "memory"
# The folders of these two directories; each is closed by itself where those are open already.
IN_LETTA: Final = (
    *(AGENTS, "artifacts", "cache", "listener-state", "listener-terminal-state", "logs"),
    *("state", "transcripts", "worktrees"),
)
IN_STATE: Final = (AGENTS, CONVERSATIONS, MEMORIES, "providers", "secrets")
# Folders of an agent's memory that are more than text: skills, and code that Letta Code runs.
SKILLS: Final = "skills"
MODS: Final = "mods"
# The one file of memory whose name begins with a dot: limits of its size.
MEMORY_LIMITS: Final = ".memfs.config.json"
# Tags by which Letta Code tells whose sub-agent an agent is (it then has the servers and the keys
# of that one), and how its memory is kept.
MEANT_TAG: Final = "git-memory-enabled"
MEANT_TAGS: Final = ("origin:", "parent:", "role:", "type:")
SUBAGENT_TAGS: Final = ("parent:", "role:subagent")
# The hooks that Letta Code installs in an agent's memory repository.
HOOKS: Final = ("pre-commit", "post-commit")


def find_ledgers(home: Path) -> list[Path]:
    """Return the files in which the runtime notes accepted inputs (one per API server URL)."""
    return sorted((home / LETTA / "state").glob(f"*/{LEDGER}"))


def find_memory(state: Path, agent_id: str) -> Path:
    """Return the directory of an agent's memory repository on this machine."""
    return state / MEMORIES / agent_id / MEMORY


def find_agent_file(state: Path, agent_id: str) -> Path:
    """Return the file in which an agent is kept; its name is the id as unpadded base64."""
    return state / AGENTS / f"{_encode_name(agent_id)}.json"


def find_messages(state: Path, agent_id: str, conversation_id: str) -> Path:
    """Return the file in which a conversation's messages are kept, once they are whole."""
    place = f"conversation:{conversation_id}"
    if conversation_id == "default":
        place = f"default:{agent_id}"
    return state / CONVERSATIONS / _encode_name(place) / MESSAGES


def decode_name(name: str) -> str:
    """Return the id that a file or folder is named by."""
    with suppress(ValueError):
        return base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
    return name


def _encode_name(of: str) -> str:
    return base64.urlsafe_b64encode(of.encode()).decode().rstrip("=")


# -- the ledger of accepted inputs ------------------------------------------------------------

LEDGER: Final = "input-dispositions-v2.json"
ENTRIES: Final = "entries"
# The key of an entry whose input is run at the next start of its conversation.
QUEUED: Final = "queuedInput"
ACCEPTED_AT: Final = "acceptedAt"
# The ids of connections to an App Server begin so; those of other programs do not.
CONNECTIONS: Final = "app-server-"
# An entry whose input is not run again, with ``QUEUED`` taken out.
COMPLETED: Final = {"disposition": "started", "replayCompleted": True}
# A process takes the ledger's lock by a rename of a directory of its own.
LOCK: Final = ".lock"
CANDIDATE: Final = "candidate"


def describe_owner(token: str, pid: int) -> dict[str, Any]:
    """Return the content of the file by which a lock names who holds it."""
    return {"token": token, "pid": pid, "processStart": None}


def find_connection(entry: dict[str, Any]) -> str:
    """Return the id of the connection that an open input came over."""
    incoming = entry[QUEUED].get("incoming") or {}
    return str(incoming.get("connectionId") or CONNECTIONS)


def find_scope(entry: dict[str, Any]) -> tuple[str | None, str]:
    """Return the agent's id and the conversation's id of an open input."""
    scope = entry[QUEUED].get("scope") or {}
    return scope.get("agentId"), str(scope.get("conversationId") or "")


# -- the list ---------------------------------------------------------------------------------

_VERSION: Final = "letta 0.34.12"
_NO_RUNTIME: Final = "Local() raises RuntimeUnavailableError: the package is incomplete."
_NO_MODELS: Final = "Local(openai_compatible=...) has no model."
_OPEN: Final = "Letta Code makes the directory as the umask says, and others may read it."
_LOST: Final = "A damaged file is not named: the runtime fails, or its agent is missing."
_RERUN: Final = "A message whose server was killed is run again by the next one."
_NO_LOCK: Final = "The ledger may be written by two processes at once, and lose an entry."
_REFLECTS: Final = (
    "Nothing, as long as the settings of reflection are answered from here; else agents reflect as "
    "those of Letta Code say, with a shell that nobody is asked about."
)
_UNTOLD: Final = (
    "The file images-told is missing: that a model does not see an image is only logged, once."
)
_PROJECT: Final = "Files of a working directory may grant permissions and run hooks."
_KEYS: Final = "A sub-agent has no key of its model's provider, and fails."


def _parts(source: str, when_gone: str, *names: str) -> tuple[PrivatePart, ...]:
    return tuple(PrivatePart(name, source, _VERSION, when_gone) for name in names)


PARTS: Final = (
    *_parts("the wheel", "Local() raises RuntimeUnavailableError: not installed.", PACKAGE),
    *_parts("the wheel", _NO_RUNTIME, PAYLOAD, NODE, APP),
    *_parts("the payload", "Nothing: the version is asked of the installed package.", MANIFEST),
    *_parts(
        "the output of `letta server`",
        "Local() raises RuntimeStartError: the runtime was not ready in time.",
        SOCKET_LINE,
    ),
    # Variables.
    *_parts(
        "getLocalBackendStorageDir",
        "A caller who sets it gets the agents of the home directory.",
        STATE_DIR,
    ),
    *_parts(
        "memory repositories",
        "With Local(api=...) the memory of agents is looked for on Letta Cloud.",
        MEMORY_URL,
    ),
    *_parts("the provider lmstudio", _NO_MODELS, MODEL_SERVER, MODEL_SERVER_KEY),
    *_parts("updates", "Nothing, as long as DISABLE_AUTOUPDATER is there.", INSTALLED_BY),
    *_parts("updates", f"Nothing, as long as {INSTALLED_BY} is there.", "DISABLE_AUTOUPDATER"),
    *_parts(
        "telemetry",
        "Nothing, as long as one of the two variables is there; else Letta Code reports usage.",
        "LETTA_CODE_TELEM",
        "DO_NOT_TRACK",
    ),
    *_parts(
        "the scheduler",
        "The user's timers of Letta Code run in the application's runtime.",
        "LETTA_DISABLE_CRON_SCHEDULER",
    ),
    *_parts("mods", "The user's mods of Letta Code run in the runtime.", "LETTA_DISABLE_MODS"),
    *_parts(
        "settings",
        "The user's `letta` command continues a session of the application.",
        "LETTA_DISABLE_SESSION_PERSIST",
    ),
    *_parts(
        "secrets", "The runtime may ask for a keychain, and wait.", "LETTA_SKIP_KEYCHAIN_CHECK"
    ),
    # Directories and files.
    *_parts(
        "directories",
        "Our lock and record are not beside the agents, and no damaged file of theirs is found.",
        LETTA,
        STATE,
    ),
    *_parts("directories", _OPEN, *(n for n in dict.fromkeys((*IN_LETTA, *IN_STATE)))),
    *_parts("the store of conversations", _LOST, MESSAGES),
    *_parts(
        "the store of conversations",
        "A call that is made again, after its process died in mid-answer, gets the part it heard.",
        "conversation:",
        "default:",
    ),
    *_parts(
        "getMemoryFilesystemRoot",
        "agents.memory_path() raises NotFoundError, and reading a memory's files is asked about.",
        MEMORY,
    ),
    *_parts("memory repositories", "A hook of Letta Code's own does not run there.", *HOOKS),
    *_parts("memory repositories", "A bundle brings them along, and no one is told.", SKILLS, MODS),
    *_parts("memory repositories", "Nothing: a file that nobody reads is carried.", MEMORY_LIMITS),
    *_parts(
        "the tags of agents",
        "Tags of an imported agent are taken for the user's own.",
        MEANT_TAG,
        "origin:letta-code",
        "role:subagent",
        "parent:",
    ),
    # The ledger.
    *_parts("the ledger of accepted inputs", _RERUN, LEDGER, QUEUED, ENTRIES, ACCEPTED_AT),
    *_parts("the ledger of accepted inputs", _RERUN, *COMPLETED),
    *_parts(
        "the ids of connections",
        "In a shared home a message of another program of Letta Code's is taken for ours.",
        CONNECTIONS,
    ),
    *_parts("the ledger's lock", _NO_LOCK, LOCK, CANDIDATE, "processStart"),
    # What only the preloads read (`_compat.cjs`).
    *_parts("settings", _PROJECT, "settings.json", "settings.local.json"),
    *_parts(
        "permissions",
        "A tool that the runtime runs without asking ends its turn (`ran_unasked`).",
        "alwaysAsk",
    ),
    *_parts(
        "sub-agents",
        "A sub-agent has to ask about every tool, and has nobody to ask.",
        "LETTA_CODE_AGENT_ROLE",
        "subagent",
    ),
    *_parts("sub-agents", _KEYS, "LETTA_SUBAGENT_LAUNCH"),
    *_parts("sub-agents", _REFLECTS, "LETTA_PARENT_AGENT_ID", "type:", "reflection"),
    *_parts(
        "getReflectionSettings",
        "sleeptime= is written to the settings of Letta Code; that a child is not started for an "
        "agent without one is still decided here.",
        "function getReflectionSettings(agentId, workingDirectory = process.cwd()) {\n",
    ),
    *_parts(
        "getReflectionSettings", "An agent may not reflect when it should.", "mergeInstructions"
    ),
    *_parts(
        "the tools Read and Edit",
        "A path that a model asks for with a key's variable in it shows the key.",
        "expandFilePath",
    ),
    *_parts(
        "the listener's reminders",
        "system_info_reminder=False raises UnsupportedOptionError.",
        "state: params.state,\n    systemInfoReminderEnabled: ",
        "true,",
    ),
    *_parts(
        "streamOnce",
        _UNTOLD,
        "const result = this.runStream(",
        "async* streamOnce(input) {",
        "yield providerLettaChunk({",
        "toPiMessages(input.uiMessages)",
    ),
    *_parts(
        "the model's account of the directory",
        "A repository's configuration may name a command that is run by its `git status`.",
        "--short",
    ),
)
