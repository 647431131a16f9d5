"""Internal: judge the effect of a tool call, and whether it runs when nobody is asked.

Letta Code has an opinion of its own (it calls many shell commands "read-only"), and files in the
working directory may change it. Here that opinion counts for nothing: a call is judged by the
tool's name and its arguments, with every path resolved as the file system resolves it. A call that
is not understood counts as the worst it could be: an unknown tool executes, an odd path leads out.

The tools are those of all toolsets of ``letta`` 0.34.12, and the names older versions and other
harnesses give them.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from letta_adapters.permissions import Allow, CallKind, Deny, denials, normalise_decision

# -- tools --------------------------------------------------------------------------------------

_READS: Final = frozenset({"Read", "ReadFile", "read_file", "ViewImage", "view_image"})
_LISTS: Final = frozenset({"LS", "ListDir", "list_dir", "list_directory"})
# A search reads all that lies below a directory and follows links, so only a search of one single
# file can be judged.
_SEARCHES: Final = frozenset(
    {"Glob", "glob", "Grep", "GrepFiles", "grep", "grep_files", "search_file_content"}
)
_WRITES: Final = frozenset(
    {
        "Write",
        "WriteFile",
        "write_file",
        "Edit",
        "MultiEdit",
        "multi_edit",
        "NotebookEdit",
        "replace",
    }
)
_PATCHES: Final = frozenset({"ApplyPatch", "apply_patch"})
# The effect of these does not depend on their arguments.
_ALWAYS: Final[Mapping[str, CallKind]] = {
    **dict.fromkeys(("TaskCreate", "TaskGet", "TaskList", "TaskUpdate", "TodoWrite"), "notes"),
    **dict.fromkeys(("UpdatePlan", "update_plan"), "notes"),
    **dict.fromkeys(("Agent", "agent", "Task", "task"), "unrestricted_child"),
    **dict.fromkeys(("SendAgentMessage", "Workflow"), "unrestricted_child"),
    **dict.fromkeys(("WebFetch", "WebSearch", "web_fetch", "web_search"), "network"),
    **dict.fromkeys(("fetch_webpage", "google_web_search"), "network"),
    **dict.fromkeys(("WatchPR", "MessageChannel"), "network"),
    # Letta Code's own store below its home, which belongs to no working directory.
    "read_artifact_file": "reads",
    "write_artifact_file": "writes",
}
# After one of these the agent works in another directory.
MOVES: Final = frozenset({"SetWorkingDirectory", "EnterWorktree", "ExitWorktree"})
_PATH_KEYS: Final = ("file_path", "path", "notebook_path", "absolute_path", "filePath")

# A line of a patch that names a file, in the format of the patch tool.
_PATCH_FILE: Final = re.compile(r"\*\*\* (?:Add File|Update File|Delete File|Move to): (.+)")
_BEFORE: Final = re.compile(r"^[\s\ufeff]+")
_AFTER: Final = re.compile(r"[\s\ufeff]+$")
_PATCH_OTHER: Final = re.compile(r"\*\*\* (?:Begin Patch|End Patch|End of File)")
_SKILL: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*")
_AGENT_ID: Final = re.compile(r"[A-Za-z0-9][\w-]*")
_PROJECT_SKILLS: Final = (".skills", ".agents/skills")

# -- files that may hold secrets, or that run --------------------------------------------------

# Directories that are private wherever they stand on the way to a file. A file written there may
# run: hooks of git, settings of Letta Code.
_PRIVATE_FOLDERS: Final = frozenset(
    {
        ".git", ".letta", ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".gcloud",
        ".password-store", ".vault", ".secrets", ".hg", ".svn", ".jj",
    }
)  # fmt: skip
_PRIVATE_FILES: Final = (
    ".env*", "*.env", ".envrc", ".flaskenv", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.ppk",
    "*.keystore", "*.kdbx", "*.asc", "*.gpg", "*.ovpn", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", ".netrc", "_netrc", ".pgpass", ".npmrc", ".pypirc", ".yarnrc*", ".htpasswd",
    ".git-credentials", ".dockercfg", ".boto", ".s3cfg", "service-account*.json",
    "service_account*.json", "*.tfstate*", "*.tfvars", "shadow", "shadow-",
)  # fmt: skip
_PRIVATE: Final = re.compile("|".join(fnmatch.translate(pattern) for pattern in _PRIVATE_FILES))
# Matches `passwords.txt`; `password_reset.py` is let through because source code is not a secret.
_TELLING: Final = re.compile(r"credential|secret|passw(or)?d|token|api[-_.]?key")
_SOURCE: Final = frozenset(
    {
        ".py", ".pyi", ".ipynb", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".go", ".rs",
        ".java", ".kt", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".rb", ".php", ".swift", ".md",
        ".rst", ".html", ".css", ".scss", ".vue", ".sql",
    }
)  # fmt: skip
# A file there runs without being called: at a commit, or when an editor or another agent's program
# opens the folder.
_RUNNING_FOLDERS: Final = frozenset(
    {
        ".husky", ".githooks", ".vscode", ".idea", ".devcontainer", ".zed", ".fleet", ".cursor",
        ".claude", ".codex", ".gemini", ".windsurf",
    }
)  # fmt: skip
_RUNNING_FILES: Final = frozenset(
    {
        ".pre-commit-config.yaml", "lefthook.yml", ".lefthook.yml", "lefthook-local.yml",
        ".mise.toml", "mise.toml", ".mcp.json", ".gitmodules", ".gitattributes",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ground:
    """The place on this machine where an agent's tools work.

    Args:
        cwd: The session's working directory; ``None`` if its files cannot be looked at from here.
        memory: The agent's own memory.
        private: Directories no agent may read unasked: the state of Letta Code and of this package.
        homes: The user's home, and the runtime's.
    """

    cwd: Path | None = None
    memory: Path | None = None
    private: tuple[Path, ...] = ()
    homes: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """The directories of a runtime on this machine; ``memory`` holds ``{agent}`` for the id."""

    memory: str
    private: tuple[Path, ...] = ()
    homes: tuple[Path, ...] = ()

    def ground(self, agent_id: str, cwd: str | None) -> Ground:
        """Return the place where this agent's tools work."""
        # An id becomes a part of a path, so one that could climb out of it names no memory at all.
        known = _AGENT_ID.fullmatch(agent_id) is not None
        memory = Path(self.memory.replace("{agent}", agent_id)) if known else None
        return Ground(None if cwd is None else Path(cwd), memory, self.private, self.homes)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a session; ``mode`` is in :data:`~letta_adapters.options.PERMISSION_MODES`."""

    mode: str = "standard"
    allowed: frozenset[str] = frozenset()
    disallowed: frozenset[str] = frozenset()
    # All tools that may be called at all; ``None`` for no such limit.
    offered: frozenset[str] | None = None


# The kinds of call that each mode allows where nobody is asked. Client-side tools were given in
# order to run; `strict` is for those who want to be asked about the agent's memory, too.
_HARMLESS: Final[frozenset[CallKind]] = frozenset(
    {"client_tool", "own_memory", "notes", "reads_cwd"}
)
ALLOWED_KINDS: Final[Mapping[str, frozenset[CallKind]]] = {
    "standard": _HARMLESS,
    "acceptEdits": _HARMLESS | {"writes_cwd"},
    "strict": frozenset({"client_tool"}),
}
DOES: Final[Mapping[CallKind, str]] = {
    "client_tool": "runs a tool of the application",
    "own_memory": "reads or writes the agent's own memory",
    "notes": "writes the agent's notes",
    "reads_cwd": "reads in the working directory",
    "reads": "reads outside the working directory, or what may hold a secret",
    "writes_cwd": "writes a file in the working directory",
    "writes": "writes outside the working directory, or what may run or hold a secret",
    "executes": "executes something",
    "network": "uses the network",
    "unrestricted_child": "starts an agent whose own tools are asked about by nobody",
}


def answer_unasked(name: str, kind: CallKind, rules: Rules) -> Allow | Deny:
    """Return the answer to a call about which nobody is asked.

    ``disallowed`` wins over everything. ``allowed`` names whole tools, whatever their arguments;
    ``unrestricted`` allows all others.
    """
    if is_disallowed(name, rules):
        return Deny(denials.DISALLOWED)
    if _family(name) & rules.allowed or rules.mode == "unrestricted":
        return Allow()
    if kind in ALLOWED_KINDS.get(rules.mode, frozenset()):
        return Allow()
    return Deny(denials.explain_unasked(DOES[kind]))


def question(client_tool: bool, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a :class:`PermissionContext` that describe the question.

    Args:
        client_tool: True if the tool is the application's own.
        details: The backend's own details of the question; ``default`` in it is plain data. The
            Letta API gives none: its tools run on the server, and it asks only where a rule
            requires it.
    """
    if client_tool:
        return {"client_tool": True, "kind": "client_tool", "default": Allow()}
    fields = dict(details)
    return {
        **fields,
        "default": normalise_decision(fields.get("default") or Deny(denials.NOBODY_ASKED)),
    }


def is_disallowed(name: str, rules: Rules) -> bool:
    """Return whether the session has ruled the tool out, under whichever of its names."""
    names = _family(name)
    # A tool that the model was not offered may still be called, by one that was told its name.
    return bool(names & rules.disallowed) or not (rules.offered is None or names & rules.offered)


def _family(name: str) -> frozenset[str]:
    """Return all names of a tool that has several."""
    for family in ({"Agent", "agent", "Task", "task"}, _PATCHES):
        if name in family:
            return frozenset(family)
    return frozenset({name})


def classify_call(name: str, tool_input: Mapping[str, Any], ground: Ground) -> CallKind:
    """Return the effect of a call of a tool that Letta Code runs.

    Args:
        name: The tool, as the model called it.
        tool_input: The arguments it is about to run with.
        ground: The place where it runs.
    """
    if name in _ALWAYS:
        return _ALWAYS[name]
    if name == "Memory":
        return _memory(tool_input, ground)
    if name == "Skill":
        return _skill(tool_input, ground)
    if name in _SEARCHES and _gives_options(tool_input):
        return "executes"
    if name in _READS | _SEARCHES:
        return _reads(_list_paths(tool_input), ground)
    if name in _LISTS:
        return _lists(tool_input, ground)
    if name in _WRITES:
        return _writes(_list_paths(tool_input), ground)
    if name in _PATCHES:
        return _writes(_list_patched(tool_input), ground)
    return "executes"


# A longer chain of links is taken to be endless; Linux gives up as early.
_MOST_LINKS: Final = 40

# -- paths --------------------------------------------------------------------------------------


def _list_paths(tool_input: Mapping[str, Any]) -> list[Any]:
    """Return all arguments that name a file; the name of that argument differs between tools."""
    return [tool_input[key] for key in _PATH_KEYS if tool_input.get(key) is not None]


def _gives_options(tool_input: Mapping[str, Any]) -> bool:
    """Return whether ``rg`` might read an argument as an option.

    Its option ``--pre`` runs a command, and ``-f`` reads a file.
    """
    given = [v for key, v in tool_input.items() if v is not None and not key.startswith("-")]
    return any(not isinstance(v, str | int | float) or str(v).startswith("-") for v in given)


def _list_patched(tool_input: Mapping[str, Any]) -> list[Any]:
    """Return the files of a patch; ``[None]`` if a line of it is not understood."""
    text = tool_input.get("input", tool_input.get("patch"))
    if not isinstance(text, str):
        return [None]
    found: list[Any] = []
    # Split as JavaScript does: other characters end no line, and more of them are space around a
    # header.
    for line in text.split("\n"):
        header = _BEFORE.sub("", line.removesuffix("\r"))
        if not header.startswith("***"):
            continue
        # Space around a name is a part of it for the tool in some headers, and in others not. So it
        # stays, and makes the name odd.
        file = _PATCH_FILE.fullmatch(header)
        if file is not None:
            found.append(file[1])
        elif _PATCH_OTHER.fullmatch(_AFTER.sub("", header)) is None:
            return [None]
    return found


def _memory(tool_input: Mapping[str, Any], ground: Ground) -> CallKind:
    """Judge a call that reads one file or directory of the memory, named relative to it."""
    path = tool_input.get("path", ".")
    if not _is_below(path):
        return "reads"
    # Its files cannot be looked at from here, and the tool itself stays inside the memory.
    if ground.memory is None:
        return "own_memory"
    found = _follow(ground.memory / path)
    if found is None:
        return "reads"
    inside = found == _resolve_links(ground.memory) or _below(found, ground.memory)
    return "own_memory" if inside and not _is_private(found, ground.memory) else "reads"


def _reads(paths: Iterable[Any], ground: Ground) -> CallKind:
    kinds = {_read(path, ground) for path in paths} or {"reads"}
    return _choose_worst(kinds, "reads", "reads_cwd")


def _read(given: Any, ground: Ground) -> CallKind:
    path = _resolve(given, ground)
    if path is None or not _is_plain_file(path):
        return "reads"
    if _below(path, ground.memory) and not _is_private(path, ground.memory):
        return "own_memory"
    return "reads_cwd" if _is_open(path, ground) else "reads"


def _lists(tool_input: Mapping[str, Any], ground: Ground) -> CallKind:
    """Judge a call that shows the names of files only."""
    paths = _list_paths(tool_input) or [str(ground.cwd)]
    resolved = [_resolve(path, ground) for path in paths]
    inside = all(path is not None and _is_open(path, ground) for path in resolved)
    return "reads_cwd" if inside else "reads"


def _is_below(path: Any) -> bool:
    if not isinstance(path, str) or _is_odd(path):
        return False
    return not Path(path).is_absolute() and ".." not in re.split(r"[/\\]", path)


def _writes(paths: Iterable[Any], ground: Ground) -> CallKind:
    kinds = {_write(path, ground) for path in paths} or {"writes"}
    return _choose_worst(kinds, "writes", "writes_cwd")


def _write(given: Any, ground: Ground) -> CallKind:
    path = _resolve(given, ground)
    if path is None or not (_is_plain_file(path, alone=True) or not os.path.lexists(path)):
        return "writes"
    if _below(path, ground.memory) and not _is_private(path, ground.memory):
        # Notes are Markdown; any other file that an agent keeps there might be loaded and run.
        return "own_memory" if path.suffix.lower() == ".md" else "writes"
    parts = _fold(path)
    runs = not _RUNNING_FOLDERS.isdisjoint(parts) or parts[-1] in _RUNNING_FILES
    return "writes_cwd" if _is_open(path, ground) and not runs else "writes"


def _choose_worst(kinds: set[CallKind], *order: CallKind) -> CallKind:
    return next((kind for kind in order if kind in kinds), next(iter(kinds)))


def _skill(tool_input: Mapping[str, Any], ground: Ground) -> CallKind:
    """Judge a call that reads the text of a skill; one of the project may be a link elsewhere."""
    name = tool_input.get("skill")
    if not isinstance(name, str) or _SKILL.fullmatch(name) is None or ground.cwd is None:
        return "reads"
    homes = [ground.cwd / folder for folder in _PROJECT_SKILLS]
    if not any(os.path.lexists(home) for home in homes):
        return "notes"
    files = [home / name / "SKILL.md" for home in homes]
    found = [file for file in files if os.path.lexists(file)]
    # A skill's name may also stand inside a file; then it is not known which file is meant.
    return _reads([str(file) for file in found], ground) if found else "reads"


def _is_odd(text: str) -> bool:
    """Return whether the runtime, or a system, might read a path differently from its letters.

    Letta Code replaces ``~`` by the home and ``$`` by variables; Windows has streams (``:``), and
    forgets dots and spaces at the end.
    """
    if text != text.strip() or not text or text.startswith("~") or "$" in text:
        return True
    if any(unicodedata.category(char)[0] == "C" for char in text):
        return True
    if os.name == "nt":
        parts = re.split(r"[/\\]", os.path.splitdrive(text)[1])
        return any(
            ":" in part or part.rstrip(". ") != part
            for part in parts
            if part not in ("", ".", "..")
        )
    return "\\" in text


def _resolve(given: Any, ground: Ground) -> Path | None:
    """Return the real file behind a path; ``None`` if that is not certain."""
    if not isinstance(given, str) or ground.cwd is None or _is_odd(given):
        return None
    path = ground.cwd / given
    found = _follow(path)
    # `..` behind a link: the system goes up from the target of the link, Node (for a relative path)
    # from the link itself.
    if ".." in path.parts and found != _follow(Path(os.path.normpath(path))):
        return None
    return found


def _follow(path: Path) -> Path | None:
    """Return the path without links; ``None`` if another process may find something else there.

    ``/proc/self`` is another directory for each process, and so is every link to it.
    """
    if os.name == "nt":
        return _resolve_links(path)
    # One part after the other, as the kernel does: each may be a link, to anywhere.
    links = 0
    here, ahead = Path(path.anchor), list(reversed(path.parts[1:]))
    while ahead:
        part = ahead.pop()
        here = here.parent if part == ".." else here / part
        if here.parts[1:2] == ("proc",) or here.parts[1:3] == ("dev", "fd"):
            return None
        target = _target(here)
        if target is not None:
            links += 1
            if links > _MOST_LINKS:
                return None
            here = Path(target.anchor) if target.is_absolute() else here.parent
            ahead += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return here


def _target(path: Path) -> Path | None:
    """Return the target of a link; ``None`` if the path is no link."""
    try:
        return path.readlink()
    except (OSError, ValueError):
        return None


def _is_plain_file(path: Path, *, alone: bool = False) -> bool:
    """Return whether it is a regular file; ``alone`` also asks that it has no other name.

    A second name (a hard link) may stand in another place.
    """
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and not (alone and found.st_nlink > 1)


def _fold(path: Path) -> tuple[str, ...]:
    """Return the parts of a path as a file system sees them that ignores upper and lower case."""
    return tuple(unicodedata.normalize("NFKC", part).casefold() for part in path.parts)


def _resolve_links(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _below(path: Path, root: Path | None) -> bool:
    """Return whether a real path is inside ``root``, which is made real here."""
    return (
        root is not None
        and path.is_relative_to(_resolve_links(root))
        and path != _resolve_links(root)
    )


def _is_private(path: Path, root: Path | None) -> bool:
    """Return whether a file may hold a secret, or run.

    Directories above ``root`` do not count: they are the user's own choice.
    """
    parts = _fold(path)
    below = parts[len(_fold(_resolve_links(root))) :] if root is not None else parts
    if not below:
        return False
    if not _PRIVATE_FOLDERS.isdisjoint(below) or _PRIVATE.match(below[-1]) is not None:
        return True
    return _TELLING.search(below[-1]) is not None and Path(below[-1]).suffix not in _SOURCE


def _is_open(path: Path, ground: Ground) -> bool:
    """Return whether a path is inside the working directory, and not private."""
    root = ground.cwd
    if root is None or not is_open_ground(ground):
        return False
    if path != _resolve_links(root) and not _below(path, root):
        return False
    return not _is_private(path, root)


def is_open_ground(ground: Ground) -> bool:
    """Return whether anything may be read there without a question.

    Not in a home, nor in a directory around or inside private state.
    """
    if ground.cwd is None:
        return False
    root = _fold(_resolve_links(ground.cwd))
    homes = [_fold(_resolve_links(home)) for home in ground.homes]
    private = [_fold(_resolve_links(place)) for place in ground.private]
    if any(_starts(home, root) for home in homes):
        return False
    return not any(_starts(place, root) or _starts(root, place) for place in private)


def _starts(parts: tuple[str, ...], root: tuple[str, ...]) -> bool:
    return parts[: len(root)] == root
