"""Memory in files, on the real runtime: links, refused files, and what comes in pieces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from letta_adapters import ConflictError, InvalidInputError, LettaClient, NotFoundError
from letta_adapters.client.memory_checks import check_file_label

pytestmark = pytest.mark.slow


@pytest.fixture
def agent(embedded: LettaClient) -> str:
    made = embedded.create_agent(name="files", system_prompt="t", persona="I am a test.")
    return made


def test_a_memory_of_many_files_is_listed_whole(embedded: LettaClient, agent: str) -> None:
    # The server sends five files at a time.
    for number in range(4):
        embedded.agents.memory.create(agent, f"note-{number}", f"{number}")
    labels = [item.label for item in embedded.agents.memory.list(agent)]
    assert [label for label in labels if label.startswith("note-")] == [
        f"note-{number}" for number in range(4)
    ]
    assert len(embedded.agents.memory_files(agent)) == len(labels)


def test_a_link_in_the_memory_is_not_followed(
    embedded: LettaClient, agent: str, tmp_path: Path
) -> None:
    memory, root = embedded.agents.memory, embedded.agents.memory_path(agent)
    secret = tmp_path / "secret.md"
    secret.write_text("---\nname: s\ndescription: s\n---\nsecret")
    (root / "linked.md").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    for label in ("linked", "folder/secret"):
        with pytest.raises(InvalidInputError, match="link"):
            memory.read(agent, label)
        with pytest.raises(InvalidInputError, match="link"):
            memory.write(agent, label, "overwritten")
        with pytest.raises(InvalidInputError, match="link"):
            memory.delete(agent, label)
        with pytest.raises(InvalidInputError, match="link"):
            memory.create(agent, label, "made")
    assert secret.read_text().endswith("secret")
    assert not any("secret" in item.value for item in memory.list(agent))


def test_a_file_that_is_refused_is_not_left_behind(embedded: LettaClient, agent: str) -> None:
    memory, root = embedded.agents.memory, embedded.agents.memory_path(agent)
    hook = root / ".git" / "hooks" / "letta-memory-constraints.cjs"
    assert hook.exists()
    # An index must have no header, so this one is refused by the server.
    with pytest.raises(InvalidInputError, match="refused"):
        memory.write(agent, "MEMORY", "---\nname: x\ndescription: y\n---\n")
    assert not (root / "MEMORY.md").read_text().startswith("---")
    assert memory.write(agent, "persona", "Still good.").value == "Still good."


def test_what_was_written_is_read_as_it_was(embedded: LettaClient, agent: str) -> None:
    memory = embedded.agents.memory
    for text in ("", "---\nname: x\n---\n", "  spaces \r\n\n", "a\u2028b 👩‍🚀 שלום"):
        assert memory.write(agent, "persona", text).value == text
        assert memory.read(agent, "persona").value == text
    item = memory.write(agent, "persona", description="two\nlines: with 'quotes'")
    assert item.description == "two lines: with 'quotes'"
    assert memory.create(agent, "ünï cödé", "x").path == "ünï cödé.md"
    memory.delete(agent, "ünï cödé")
    with pytest.raises(NotFoundError):
        memory.read(agent, "ünï cödé")


@pytest.mark.parametrize(
    "text",
    [
        '"quoted"', "'quoted'", '"', "[x]", "{a: b}", "a: b", "# no", "- item", "> more",
        "| a | b |", ">2", "null", "true", "42", "&a", "*b", "!c", "%d",
        "two  spaces\tand a tab", "\u3000wide\u3000a",
    ],
)  # fmt: skip
def test_a_description_is_read_as_it_was_given(
    embedded: LettaClient, agent: str, text: str
) -> None:
    memory = embedded.agents.memory
    kept = text.strip()
    assert memory.write(agent, "persona", description=text).description == kept
    assert memory.create(agent, f"made-{sum(map(ord, text))}", "x", description=text).description
    # The list is what Letta Code itself reads, and shows to the agent.
    listed = {item.label: item.description for item in memory.list(agent)}
    assert listed["persona"] == listed[f"made-{sum(map(ord, text))}"] == kept


@pytest.mark.parametrize("text", [">", "|", "|-", ">+", '""', "''", " > \n"])
def test_a_description_that_no_header_can_hold_is_refused(
    embedded: LettaClient, agent: str, text: str
) -> None:
    memory = embedded.agents.memory
    before = memory.read(agent, "persona")
    with pytest.raises(InvalidInputError, match="description"):
        memory.write(agent, "persona", "changed", description=text)
    with pytest.raises(InvalidInputError, match="description"):
        memory.create(agent, "folder/new", "x", description=text)
    assert memory.read(agent, "persona") == before
    assert not any(item.label.startswith("folder") for item in memory.list(agent))


@pytest.mark.parametrize(
    ("entry", "description"),
    [
        ("description: >\n  long\n  text\n\n  more\n", "long text\nmore"),
        ("description: |-\n  long\n   text\n", "long\n text"),
        ("description : spaced\n", "spaced"),
        ("description:\n  - a\n  - b\n", None),
        ("description: one\n  two: of it\n", "one"),
        ("other: >\n  description: none\ndescription: this\n", "this"),
        ("description: first\ndescription: last\n", "last"),
    ],
    ids=["folded", "literal", "space", "list", "continued", "inside", "twice"],
)
def test_a_description_in_several_lines_is_read_and_replaced_as_a_whole(
    embedded: LettaClient, agent: str, entry: str, description: str | None
) -> None:
    memory, root = embedded.agents.memory, embedded.agents.memory_path(agent)
    # Another program may write what Letta Code reads and would not commit.
    (root / "persona.md").write_text(f"---\nname: x\n{entry}---\nI am a test.")
    assert memory.read(agent, "persona").description == description
    listed = {item.label: item.description for item in memory.list(agent)}
    assert listed["persona"] == description
    if "other" in entry:
        return  # a field that Letta Code does not commit
    assert memory.write(agent, "persona", description="new").description == "new"
    kept = "---\nname: x\ndescription: new\n---\nI am a test."
    assert (root / "persona.md").read_text() == kept


@pytest.mark.parametrize(
    "label",
    [
        "../x", "/etc/passwd", "a/../b", "a//b", ".git/config", "a/.hidden", "x/", "a\\b", "a*",
        "a?", "[a]", ":(glob)a", "C:x", "persona.md", "x" * 255, "é" * 127,
    ],
)  # fmt: skip
def test_a_label_never_leaves_the_repository(label: str) -> None:
    with pytest.raises(InvalidInputError):
        check_file_label(label)


def test_of_two_writes_with_one_version_one_is_refused(embedded: LettaClient, agent: str) -> None:
    memory = embedded.agents.memory
    version = memory.read(agent, "persona").version

    def write(text: str) -> str:
        try:
            return memory.write(agent, "persona", text, if_match=version).value
        except ConflictError as error:
            return error.code

    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(write, ["mine", "yours"]))
    assert sorted(told)[0] == "memory_changed"
    assert memory.read(agent, "persona").value in told
