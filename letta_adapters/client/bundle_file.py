"""Internal: show what a git bundle of an agent on Letta Code brings along and asks for.

Such a file is a bundle that git itself reads: ``refs/heads/main`` is the agent's memory with its
history, and ``refs/letta-adapters/agent`` one commit with a file ``agent.json``, which has the
settings to make the agent anew. Everything else is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from letta_adapters.backends.agent_settings import ONLY_TAGS, OWN_TAGS, Restrictions
from letta_adapters.backends.runtime._compat import MEANT_TAG, MEANT_TAGS, MODS, SKILLS
from letta_adapters.client.bundle_pack import MARK, Bundle, read_bundle, refuse
from letta_adapters.client.bundle_tree import Entry, Trees
from letta_adapters.client.file_parts import AgentFile, FileAgent, FileBlock, FileMemory
from letta_adapters.client.strict_json import parse_object

MEMORY: Final = "refs/heads/main"
SETTINGS: Final = "refs/letta-adapters/agent"
SETTINGS_FILE: Final = "agent.json"
_FORMAT: Final = "letta-adapters agent"
_VERSION: Final = 1
_MAX_SETTINGS: Final = 1 << 20
_MAX_NAME: Final = 200
_MAX_COMMITS: Final = 50_000
_TEXTS: Final = ("description", "model", "name", "system")
_LISTS: Final = ("restrictions", "tags")
_SHA: Final = r"[0-9a-f]{40}"
# Of a commit only what names other objects is read; an import has git check the rest (fsck).
_HEAD: Final = re.compile(rf"tree ({_SHA})\n((?:parent {_SHA}\n)*)author [^\n]".encode())


def is_bundle(data: bytes) -> bool:
    """Return whether a file is a git bundle of any version."""
    return MARK.match(data) is not None


def write_settings(agent: Mapping[str, Any]) -> bytes:
    """Return the settings that make an agent anew, as they stand in a bundle.

    No key, no variable, no address and no directory is in them.
    """
    tags = [tag for tag in agent.get("tags") or () if isinstance(tag, str)]
    made = {
        **{name: agent.get(name) for name in _TEXTS if agent.get(name) is not None},
        "tags": [tag for tag in tags if not _is_meant(tag)],
        # These stand in tags that were left out just now, and in metadata.
        "restrictions": list(Restrictions.of_agent(agent).words()),
    }
    document = {"format": _FORMAT, "version": _VERSION, "agent": made}
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def read_restrictions(shown: AgentFile) -> Restrictions:
    """Return the settings of the agent that restrict it; a word that is not known does too."""
    agent = json.loads(shown.content)["agent"]
    # An export has none of these tags, but a file that somebody else made may: they restrict too.
    words = [tag.removeprefix(ONLY_TAGS) for tag in agent["tags"] if tag.startswith(ONLY_TAGS)]
    return Restrictions.of_words([*agent["restrictions"], *words])


def describe_bundle(data: bytes) -> AgentFile:
    """Return what a bundle holds and asks for; git is not needed, and nothing is written.

    Raises:
        InvalidInputError: It is no bundle of an agent, is damaged, or larger than the bounds.
    """
    bundle = read_bundle(data)
    if set(bundle.refs) != {MEMORY, SETTINGS}:
        raise refuse(f"it has to have {MEMORY} and {SETTINGS}, and nothing else")
    trees = Trees(bundle)
    seen, settings = _read_settings(bundle)
    root, commits = _check_history(bundle, trees)
    seen |= commits | trees.seen
    # Such objects would come along without being shown.
    if seen != set(bundle.objects):
        raise refuse("it holds objects that none of its commits names")
    files = tuple(_describe_file(bundle, path, entry) for path, entry in trees.walk(root))
    agent = settings["agent"]
    odd = () if _is_plain(agent["name"]) else ("the agent's name is no line of text",)
    notes = [file for file in files if file.path.endswith(".md") and file.content is not None]
    return AgentFile(
        digest="sha256:" + hashlib.sha256(data).hexdigest(),
        agents=(
            FileAgent(
                name=agent["name"],
                system=agent.get("system") or "",
                model=agent.get("model"),
                tools=(),
                blocks=tuple(file.path.removesuffix(".md") for file in notes),
                messages=0,
                description=agent.get("description"),
                tags=tuple(tag for tag in agent["tags"] if not _is_meant(tag)),
            ),
        ),
        blocks=tuple(
            FileBlock(file.path.removesuffix(".md"), file.content or "", False) for file in notes
        ),
        tools=(),
        mcp_servers=(),
        files=(),
        skills=tuple(dict.fromkeys(_list_inside(files, SKILLS))),
        secrets=(),
        exposed_secrets=(),
        demands=tuple(dict.fromkeys(_list_demands(files))),
        left_out=tuple(_list_left_out(settings)),
        content=json.dumps(settings),
        memory=files,
        commits=len(commits),
        refused=(*odd, *trees.refused),
        bundle=data,
    )


def _is_plain(name: str) -> bool:
    """Return whether the name can be given to git, in whose settings Letta Code writes it."""
    return name.isprintable() and not name.startswith("-") and len(name) <= _MAX_NAME


def _is_meant(tag: str) -> bool:
    """Return whether Letta Code, or this package, would act upon a tag."""
    return tag == MEANT_TAG or tag.startswith((OWN_TAGS, *MEANT_TAGS))


def _read_settings(bundle: Bundle) -> tuple[set[str], dict[str, Any]]:
    """Return the objects that hold the settings, and the settings."""
    commit = bundle.refs[SETTINGS]
    root, parents = _read_commit(bundle, commit)
    entries = Trees(bundle).read(root)
    if parents or [(e.name, e.mode) for e in entries] != [(SETTINGS_FILE, "100644")]:
        raise refuse(f"{SETTINGS} has to be one commit with the file {SETTINGS_FILE}")
    data = bundle.find(entries[0].sha, "blob")
    if len(data) > _MAX_SETTINGS:
        raise refuse(f"its {SETTINGS_FILE} is larger than {_MAX_SETTINGS >> 20} MiB")
    found = parse_object(data, lambda why: refuse(f"of its {SETTINGS_FILE}, {why}"))
    return {commit, root, entries[0].sha}, _check_settings(found)


def _check_settings(found: dict[str, Any]) -> dict[str, Any]:
    # By identity, since `True` is equal to 1.
    if found.get("format") != _FORMAT or found.get("version") is not _VERSION:
        raise refuse(f"its {SETTINGS_FILE} is of another version")
    agent = found.get("agent")
    if not isinstance(agent, dict) or not isinstance(agent.get("name"), str) or not agent["name"]:
        raise refuse(f"its {SETTINGS_FILE} names no agent")
    for name in _TEXTS:
        if not isinstance(agent.get(name) or "", str):
            raise refuse(f"{name!r} of its agent is no text")
    for name in _LISTS:
        items = agent.setdefault(name, [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise refuse(f"{name!r} of its agent is no list of texts")
    return found


def _check_history(bundle: Bundle, trees: Trees) -> tuple[str, set[str]]:
    """Return the newest folder and the ids of all commits, after a look at each of them."""
    commits: set[str] = set()
    # A list and no recursion: Python does not go as deep as a history may be long.
    waiting = [bundle.refs[MEMORY]]
    while waiting:
        sha = waiting.pop()
        if sha in commits:
            continue
        commits.add(sha)
        if len(commits) > _MAX_COMMITS:
            raise refuse(f"it has more than {_MAX_COMMITS} commits")
        root, parents = _read_commit(bundle, sha)
        trees.check(root)
        waiting += parents
    newest, _ = _read_commit(bundle, bundle.refs[MEMORY])
    return newest, commits


def _read_commit(bundle: Bundle, sha: str) -> tuple[str, list[str]]:
    """Return the folder of a commit, and its parents."""
    found = _HEAD.match(bundle.find(sha, "commit"))
    if found is None:
        raise refuse("it has a commit that is damaged")
    return found[1].decode(), re.findall(_SHA, found[2].decode())


def _describe_file(bundle: Bundle, path: str, entry: Entry) -> FileMemory:
    data = b"" if entry.mode == "160000" else bundle.find(entry.sha, "blob")
    try:
        content = data.decode()
    except UnicodeDecodeError:
        content = None
    return FileMemory(path, len(data), content, executable=entry.mode == "100755")


def _list_inside(files: Iterable[FileMemory], folder: str) -> Iterator[str]:
    """Yield the names inside a folder, under whatever case other systems know it by."""
    for file in files:
        first, _, rest = file.path.partition("/")
        if first.casefold() == folder and rest:
            yield rest.partition("/")[0]


def _list_demands(files: tuple[FileMemory, ...]) -> Iterator[str]:
    yield from (f"mod:{name}" for name in _list_inside(files, MODS))
    yield from (f"skill:{name}" for name in _list_inside(files, SKILLS))
    yield from (f"executable:{file.path}" for file in files if file.executable)


def _list_left_out(settings: Mapping[str, Any]) -> Iterator[str]:
    agent = settings["agent"]
    yield from sorted(set(settings) - {"format", "version", "agent"})
    yield from (f"agent.{name}" for name in sorted(set(agent) - {*_TEXTS, *_LISTS}))
    meant = (tag for tag in agent["tags"] if _is_meant(tag) and not tag.startswith(ONLY_TAGS))
    yield from (f"agent.tags: {tag}" for tag in meant)
