"""A git bundle of an agent is shown whole, or refused, whatever stands in it; nothing is run."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import pytest

from letta_adapters import InvalidInputError, inspect_agent_file
from letta_adapters.client import bundle_pack, bundle_tree
from letta_adapters.client.bundle_file import MEMORY, SETTINGS, write_settings
from tests.agent_files._bundles import (
    FILE,
    FILES,
    FOLDER,
    LINK,
    MODULE,
    PERSONA,
    PROGRAM,
    Maker,
    entry,
    nest,
)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "made")


def test_a_bundle_is_shown(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    more = (
        entry(maker, PROGRAM, b"run.sh"),
        nest(maker, [b"Skills", b"sum", b"SKILL.md"], FILE),
        nest(maker, [b"mods", b"evil.js"], FILE),
        entry(maker, FILE, b"picture.png", b"\x89PNG"),
        entry(maker, FILE, b".memfs.config.json", b"{}"),
    )
    first = maker.commit(maker.files({"MEMORY.md": b"old"}))
    memory = maker.commit(maker.files(FILES, *more), first)
    tags = ["books", "role:subagent", "parent:agent-local-1", "letta-adapters:default"]
    settings = maker.settings(tags=tags, permission_mode="unrestricted")
    data = maker.bundle(memory, settings)
    # Git is not needed to look.
    monkeypatch.setenv("PATH", "")

    shown = inspect_agent_file(data)
    (agent,) = shown.agents
    assert (agent.name, agent.model, agent.system) == (
        "librarian",
        "lmstudio/scripted",
        "You keep books.",
    )
    assert (agent.description, agent.tags, agent.messages) == ("It keeps books.", ("books",), 0)
    files = {file.path: file for file in shown.memory}
    assert files["persona.md"].content == PERSONA.decode()
    assert (files["picture.png"].size, files["picture.png"].content) == (4, None)
    assert [b.label for b in shown.blocks] == ["MEMORY", "Skills/sum/SKILL", "persona"]
    assert (shown.commits, shown.skills, shown.refused) == (2, ("sum",), ())
    assert shown.demands == ("mod:evil.js", "skill:sum", "executable:run.sh")
    assert shown.left_out == (
        "agent.permission_mode",
        "agent.tags: role:subagent",
        "agent.tags: parent:agent-local-1",
        "agent.tags: letta-adapters:default",
    )
    assert shown.digest == "sha256:" + hashlib.sha256(data).hexdigest()


def test_git_reads_what_is_shown(maker: Maker) -> None:
    # Many versions of a file, which git stores as changes of each other.
    text = "\n".join(f"line {number}" for number in range(400))
    parents: list[str] = []
    for number in range(30):
        changed = text.replace(f"line {number * 7}\n", f"other {number}\n" * (number + 1))
        parents = [maker.commit(maker.files({"notes.md": changed.encode()}), *parents)]
    maker.git("update-ref", MEMORY, parents[0])
    maker.git("repack", "-adfq", "--depth=50")
    data = maker.bundle(parents[0])
    assert b"notes" not in data
    bundle = bundle_pack.read_bundle(data)
    for sha, found in bundle.objects.items():
        raw = maker.git("cat-file", found.kind, sha)
        assert raw == found.data.strip()
    assert inspect_agent_file(data).memory[0].content == changed
    assert inspect_agent_file(data).commits == 30


EVIL: Final = [
    ([b"link.md"], LINK, "symbolic link"),
    ([b"sub"], MODULE, "submodule"),
    ([b".gitattributes"], FILE, "begins with a dot"),
    ([b"a", b".gitmodules"], FILE, "begins with a dot"),
    ([b".git", b"hooks", b"post-checkout"], PROGRAM, "begins with a dot"),
    ([b".GIT", b"config"], FILE, "begins with a dot"),
    ([b".letta", b"settings.json"], FILE, "begins with a dot"),
    ([".g\u200cit".encode(), b"config"], FILE, "begins with a dot"),
    (["\u200d.git".encode(), b"config"], FILE, "begins with a dot"),
    ([b"git~1", b"config"], FILE, "short name"),
    ([b"GI7EBA~1"], FILE, "short name"),
    ([b".git ", b"config"], FILE, "begins with a dot"),
    ([b"x.md."], FILE, "ends in a dot"),
    ([b"x "], FOLDER, "ends in a dot"),
    ([b"..", b"x.md"], FILE, "begins with a dot"),
    ([b"..\\..\\x.md"], FILE, "a character that is none"),
    ([b"/etc", b"passwd"], FILE, "a character that is none"),
    ([b"a/../../x.md"], FILE, "a character that is none"),
    ([b"x.md:stream"], FILE, "a character that is none"),
    ([b"x\nmd"], FILE, "a character that is none"),
    ([b"x\x1b[2J.md"], FILE, "a character that is none"),
    ([b"\xff.md"], FILE, "is no text"),
    ([b"CON.md"], FILE, "a device"),
    ([b"PERSONA.md"], FILE, "same name as"),
    ([b"x" * 256], FILE, "too long"),
    ([b"a", b"x"], "100664", "unknown kind"),
]


def test_what_no_import_writes_is_named(maker: Maker) -> None:
    folders = [
        (FOLDER, b"d%02d" % number, maker.tree(*plain, nest(maker, names, mode)))
        for plain in [[entry(maker, FILE, b"persona.md")]]
        for number, (names, mode, _) in enumerate(EVIL)
    ]
    evil = maker.commit(maker.files(FILES, *folders))
    shown = inspect_agent_file(maker.bundle(evil))
    assert len(shown.refused) == len(EVIL)
    for reason, (names, _, why) in zip(shown.refused, EVIL, strict=True):
        assert why in reason, (names, reason)
    # As well where only an old commit has it.
    later = maker.commit(maker.files(FILES), evil)
    assert inspect_agent_file(maker.bundle(later)).refused == shown.refused


@pytest.mark.parametrize("name", ["--unset", "a\nb", "a\x1b[2J", "x" * 201])
def test_a_name_that_git_would_take_for_something_else(maker: Maker, name: str) -> None:
    assert "name" in inspect_agent_file(maker.agent(name=name)).refused[0]


def test_two_spellings_of_a_name_are_one(maker: Maker) -> None:
    evil = [entry(maker, FILE, name.encode()) for name in ("\u00e9.md", "e\u0301.md")]
    shown = inspect_agent_file(maker.agent(*evil))
    assert "same name" in shown.refused[0]


def test_a_bundle_has_two_refs_and_no_others(maker: Maker) -> None:
    memory = maker.commit(maker.files(FILES))
    for name in ("refs/tags/v1", "refs/heads/other", "refs/replace/" + "1" * 40):
        with pytest.raises(InvalidInputError, match="and nothing else"):
            inspect_agent_file(maker.bundle(memory, **{name: memory}))
    maker.git("update-ref", MEMORY, memory)
    maker.git("bundle", "create", "-q", "one", MEMORY)
    with pytest.raises(InvalidInputError, match="and nothing else"):
        inspect_agent_file(maker.folder / "one")
    tag = f"object {memory}\ntype commit\ntag v1\ntagger x <x> 1700000000 +0000\n\nx\n"
    with pytest.raises(InvalidInputError, match="no commit, tree or blob"):
        inspect_agent_file(maker.bundle(maker.object("tag", tag.encode())))


def test_an_incomplete_bundle_is_refused(maker: Maker) -> None:
    first = maker.commit(maker.files({"MEMORY.md": b"old"}))
    memory, settings = maker.commit(maker.files(FILES), first), maker.settings()
    maker.bundle(memory, settings)
    maker.git("bundle", "create", "-q", "thin", MEMORY, SETTINGS, f"^{first}")
    with pytest.raises(InvalidInputError, match="incomplete"):
        inspect_agent_file(maker.folder / "thin")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "is no JSON"),
        (b"[]", "no JSON object"),
        (b'{"format": "letta-adapters agent", "version": 2}', "another version"),
        (b'{"format": "letta-adapters agent", "version": true}', "another version"),
        (b'{"format": "letta-adapters agent", "version": 1, "version": 1}', "twice"),
        (b'{"format": "letta-adapters agent", "version": 1}', "names no agent"),
    ],
)
def test_settings_that_are_none(maker: Maker, data: bytes, why: str) -> None:
    memory = maker.commit(maker.files(FILES))
    with pytest.raises(InvalidInputError, match=why):
        inspect_agent_file(maker.bundle(memory, maker.settings_of(data)))


@pytest.mark.parametrize(
    "fields",
    [{"name": ""}, {"name": 1}, {"tags": "x"}, {"tags": [1]}, {"restrictions": {}}, {"model": 1}],
    ids=str,
)
def test_settings_of_another_shape(maker: Maker, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(fields))):
        inspect_agent_file(maker.agent(**fields))


def test_settings_are_one_file_of_one_commit(maker: Maker) -> None:
    memory, file = maker.commit(maker.files(FILES)), maker.object("blob", b"{}")
    for tree in (
        maker.tree((LINK, b"agent.json", file)),
        maker.tree((FILE, b"agent.json", file), (FILE, b"x", file)),
    ):
        with pytest.raises(InvalidInputError, match="one commit with the file"):
            inspect_agent_file(maker.bundle(memory, maker.commit(tree)))
    second = maker.commit(maker.files({"agent.json": b"{}"}), maker.settings())
    with pytest.raises(InvalidInputError, match="one commit with the file"):
        inspect_agent_file(maker.bundle(memory, second))


def test_no_key_and_no_machine_is_in_the_settings() -> None:
    agent = {
        "id": "agent-local-1",
        "name": "x",
        "system": "s",
        "model": "lmstudio/x",
        "tags": ["a", "origin:letta-code", "git-memory-enabled", "letta-adapters:only:strict"],
        "llm_config": {"model_endpoint": "http://127.0.0.1:1/v1"},
        "secrets": {"KEY": "secret"},
        "metadata": {"letta_adapters": {"only": ["no-tool:Bash"]}},
    }
    made = json.loads(write_settings(agent))
    assert made["agent"] == {
        "name": "x",
        "system": "s",
        "model": "lmstudio/x",
        "tags": ["a"],
        "restrictions": ["strict", "no-tool:Bash"],
    }


# -- files that git would not make ----------------------------------------------------------------


def pack(*objects: bytes, count: int | None = None, version: int = 2) -> bytes:
    """A bundle of one ref with these objects, as they stand in a pack."""
    body = struct.pack(">4sII", b"PACK", version, len(objects) if count is None else count)
    body += b"".join(objects)
    head = f"# v2 git bundle\n{'1' * 40} {MEMORY}\n\n".encode()
    return head + body + hashlib.sha1(body).digest()


def packed(kind: int, data: bytes, size: int | None = None, base: bytes = b"") -> bytes:
    """An object in a pack, which may claim another size than it has."""
    left = len(data) if size is None else size
    head = bytearray([kind << 4 | left & 15])
    left >>= 4
    while left:
        head[-1] |= 0x80
        head.append(left & 0x7F)
        left >>= 7
    return bytes(head) + base + zlib.compress(data, 9)


BLOB, DELTA, NAMED = 3, 6, 7
# A change of an empty object to one of 2^34 bytes, and orders that do not fit.
HUGE = b"\x00" + b"\x80\x80\x80\x80\x40" + b"\x01x"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"# v3 git bundle\n@object-format=sha256\n\n", "another version"),
        (b"# v2 git bundle\n", "header"),
        (b"# v2 git bundle\n" + b"x" * 5000, "header"),
        (b"# v2 git bundle\n\n", "no pack"),
        (pack(packed(BLOB, b"x"), version=3), "no pack"),
        (pack(count=100_001), "more than"),
        (pack(count=1), "cut off"),
        (pack(packed(BLOB, b"x"), b"more", count=1), "behind"),
        (pack(packed(BLOB, b"x"))[:-1] + b"\0", "checksum"),
        (pack(packed(BLOB, b"x"), packed(BLOB, b"x")), "twice"),
        (pack(packed(BLOB, b"\0" * 1000, size=10)), "larger than it claims"),
        (pack(packed(BLOB, b"x", size=10)), "smaller than it claims"),
        (pack(packed(BLOB, b"x", size=1 << 34)), "more than"),
        (pack(bytes([BLOB << 4 | 0x81, *[0xFF] * 20])), "too large"),
        (pack(packed(BLOB, b"x")[:-3]), "cut off"),
        (pack(bytes([BLOB << 4 | 1]) + b"no zlib"), "damaged"),
        (pack(packed(4, b"x")), "no commit, tree or blob"),
        (pack(packed(0, b"x")), "no commit, tree or blob"),
        (pack(packed(DELTA, b"\x01\x01\x01x", base=b"\x05")), "does not stand before"),
        (pack(packed(NAMED, b"\x01\x01\x01x", base=b"1" * 20)), "does not stand before"),
        (pack(packed(BLOB, b""), packed(DELTA, HUGE, base=b"\x09")), "does not fit"),
    ],
)
def test_a_file_that_git_did_not_make(data: bytes, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        inspect_agent_file(data)


@pytest.mark.parametrize(
    "delta",
    [
        b"\x03\x01\x01x",  # of an object of another size
        b"\x02\x01\x91\x01\x02",  # a copy from behind its end
        b"\x02\x01\x00",  # no order
        b"\x02\x01\x02ab",  # more than it claims
        b"\x02\x05\x01a",  # less than it claims
        b"\x02\x05\x05a",  # more to insert than there is
        b"\x02\x05\x91",  # an order that is cut off
        b"\x02",
        b"\x80" * 20,
    ],
)
def test_a_change_that_does_not_fit(delta: bytes) -> None:
    base = packed(BLOB, b"ab")
    with pytest.raises(InvalidInputError, match="a change that"):
        bundle_pack.read_bundle(pack(base, packed(DELTA, delta, base=bytes([len(base)]))))
    name = hashlib.sha1(b"blob 2\0ab").digest()
    good = pack(base, packed(NAMED, b"\x02\x04\x90\x02\x02cd", base=name))
    objects = bundle_pack.read_bundle(good).objects.values()
    assert [found.data for found in objects] == [b"ab", b"abcd"]


def test_bombs(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    # A few objects that unfold to 10^9 files.
    tree = maker.tree(entry(maker, FILE, b"x"))
    for _ in range(9):
        tree = maker.tree(*((FOLDER, b"%d" % number, tree) for number in range(10)))
    with pytest.raises(InvalidInputError, match=r"more than \d+ files"):
        inspect_agent_file(maker.bundle(maker.commit(tree)))
    # Commits that build on each other's folders.
    tree = maker.tree(entry(maker, FILE, b"x"))
    parents: list[str] = []
    for number in range(40):
        tree = maker.tree((FOLDER, b"x", tree))
        if number % 10 == 9:
            parents = [maker.commit(tree, *parents)]
    with pytest.raises(InvalidInputError, match="deep"):
        inspect_agent_file(maker.bundle(parents[0]))
    monkeypatch.setattr(bundle_tree, "MAX_BYTES", 100)
    with pytest.raises(InvalidInputError, match=r"files, or"):
        inspect_agent_file(maker.agent(files={"x.md": b"x" * 101}))
    # Many copies of what is small when it is packed.
    monkeypatch.setattr(bundle_pack, "_MAX_TOTAL", 1000)
    many = {f"{number}.md": b"%d" % number * 100 for number in range(9)}
    with pytest.raises(InvalidInputError, match="unpacks to more"):
        inspect_agent_file(maker.agent(files=many))


def test_objects_that_are_missing_or_too_many(maker: Maker) -> None:
    data = maker.agent()
    at = data.index(b"PACK")
    ours = bundle_pack.read_bundle(data).objects
    kinds = {"commit": 1, "tree": 2, "blob": 3}
    items = [packed(kinds[found.kind], found.data) for found in ours.values()]
    whole = data[:at] + pack(*items).partition(b"\n\n")[2]
    assert inspect_agent_file(whole).memory == inspect_agent_file(data).memory
    for changed in ([*items, packed(BLOB, b"more")], items[:-1], items[1:]):
        made = data[:at] + pack(*changed).partition(b"\n\n")[2]
        with pytest.raises(
            InvalidInputError, match=r"that none of its commits names|which it needs"
        ):
            inspect_agent_file(made)


def test_every_byte_that_is_changed_is_noticed(maker: Maker) -> None:
    data = maker.agent()
    shown = inspect_agent_file(data)
    for at in range(0, len(data), 7):
        other = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        try:
            found = inspect_agent_file(other)
        except InvalidInputError:
            continue
        assert found.digest != shown.digest
