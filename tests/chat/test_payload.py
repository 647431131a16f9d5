"""What goes over the wire: answers to the calls that wait, messages to store, and the message."""

from __future__ import annotations

from typing import Any

import pytest

from letta_adapters import Allow, Deny, InvalidInputError
from letta_adapters.backends.base import ToolCallResponse
from letta_adapters.chat import HistoryMessage
from letta_adapters.chat.payload import (
    Payload,
    add_instructions,
    answer_calls,
    as_message,
    as_messages,
    as_request,
    as_text,
    build_answers,
    build_payload,
)
from letta_adapters.messages import PendingToolCall
from tests.chat.builders import (
    CALL,
    IMAGE,
    TOOL,
    answer,
    asking,
    call_message,
    marked,
    on_the_way,
    result,
    user,
)


def test_answers_to_pending_calls() -> None:
    own = HistoryMessage("tool", "3", tool_call_id="call-1")
    (answer,) = answer_calls([CALL], [own], ["add"])
    assert (answer.returned, answer.is_error, answer.approve) == ("3", False, False)
    (answer,) = answer_calls([CALL], [], ["add"])
    assert answer.is_error
    (answer,) = answer_calls([CALL], [own], [])
    assert (answer.returned, answer.is_error, answer.approve) == ("3", True, False)
    for decision, approve in ((Allow({"a": 2}), True), (Deny("No."), False)):
        entry = HistoryMessage("tool", tool_call_id="call-1", decision=decision)
        (answer,) = answer_calls([CALL], [entry], [])
        assert answer.approve is approve
    parts = HistoryMessage("tool", [{"type": "text", "text": "3"}], tool_call_id="call-1")
    (answer,) = answer_calls([CALL], [parts], ["add"])
    assert answer.returned == [{"type": "text", "text": "3"}]


HISTORY = [
    user("Add.", name="ann"),
    HistoryMessage("assistant", "I add.", tool_calls=(CALL,)),
    HistoryMessage("tool", "3", tool_call_id="call-1"),
    HistoryMessage("assistant", "It is 3."),
    user("Thanks."),
]


def test_for_the_letta_api() -> None:
    request = as_request(HISTORY, "Be brief.")
    assert request.content == "Thanks."
    roles = [message["role"] for message in request.history]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert "call-1" in request.history[3]["content"]
    alone = as_request(HISTORY[2:3], "")
    assert "Result of the tool call call-1: 3" in str(alone.content)
    answers = answer_calls([CALL], HISTORY[2:3], ["add"])
    assert as_request(HISTORY[2:3], "", answers).content is None


def test_for_an_app_server() -> None:
    assert as_message([user("Hello.")], "").content == "Hello."
    content = as_message(HISTORY, "Be brief.").content
    assert isinstance(content, list)
    texts = [part["text"] for part in content]
    assert texts[0] == "<instructions>\nBe brief.\n</instructions>"
    assert "User (ann): Add." in texts[1]
    assert "Assistant called the tool add (call-1)" in texts[1]
    assert texts[2] == "Thanks."
    results = as_message(HISTORY[2:3], "").content
    assert results == [{"type": "text", "text": "Result of the tool call call-1: 3"}]


def test_a_note_goes_last() -> None:
    content = as_message([user("Hello.")], "").with_note("Hurry.").content
    assert isinstance(content, list)
    assert [part["text"] for part in content] == [
        "Hello.",
        "<instructions>\nHurry.\n</instructions>",
    ]


def test_images_go_along() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "http://letta.test/x.png"}}
    entry = user([{"type": "text", "text": "Look."}, image])
    content = as_message([entry, HistoryMessage("assistant", "A dot."), user("And?")], "").content
    assert isinstance(content, list)
    assert image in content
    assert as_messages([entry])[0]["content"] == [{"type": "text", "text": "Look."}, image]
    assert as_text([entry]) == "User: Look."


# -- answers ------------------------------------------------------------------------------------


def one_answer(*entries: HistoryMessage, own: Any = ("add",), **options: Any) -> ToolCallResponse:
    (found,) = answer_calls([CALL], entries, own, **options)
    return found


def test_a_call_that_the_application_leaves_open_gets_an_explanation() -> None:
    assert one_answer() == ToolCallResponse(
        "call-1", "add", "The application gave no result for this call.", is_error=True
    )


NOBODY = (
    "This tool call needs an approval and the application has no way to give one, so it was not "
    "run. Nobody was asked, and the user has not refused it."
)


def test_a_question_that_the_application_leaves_open_is_not_denied_in_the_users_name() -> None:
    assert one_answer(own=()) == ToolCallResponse("call-1", "add", NOBODY, is_error=True)


@pytest.mark.parametrize(
    ("said", "told"),
    [("There is no tool 'add' here.", "There is no tool 'add' here."), ("", NOBODY)],
)
def test_an_answer_to_a_question_that_is_no_decision_denies_nothing(said: str, told: str) -> None:
    """A framework answers so that it has no such tool: the user was not asked."""
    answer = one_answer(result(said), own=())
    assert answer == ToolCallResponse("call-1", "add", told, is_error=True)


def test_a_question_that_an_earlier_turn_has_left_open_is_not_denied() -> None:
    assert one_answer(own=(), left=True) == ToolCallResponse(
        "call-1",
        "add",
        "This call has no result: The turn that made it has ended, and nobody can be asked about "
        "it here. The user has not refused it. If it had begun, what it did is not known.",
        is_error=True,
    )


def test_a_call_with_broken_arguments_and_no_result_is_told_about_the_arguments() -> None:
    broken = PendingToolCall("call-1", "add", '{"a": 1,')
    (found,) = answer_calls([broken], [], ["add"])
    assert found.is_error
    assert isinstance(found.returned, str)
    assert '{"a": 1,' in found.returned


def test_a_tool_that_failed_is_answered_as_failed() -> None:
    assert one_answer(result("No.", is_error=True)) == ToolCallResponse(
        "call-1", "add", "No.", is_error=True
    )


def test_of_two_results_the_later_counts() -> None:
    assert one_answer(result("3"), result("4")).returned == "4"


def test_only_a_question_is_answered_with_a_decision() -> None:
    allowed = result("", decision=True)
    assert one_answer(allowed, own=()).approve
    # A call of the application's own tool cannot be allowed: it was run, or it was not.
    assert not one_answer(allowed).approve


def test_the_server_says_which_calls_are_questions_where_it_can() -> None:
    # A tool of the agent's may have the name of one of the application's.
    assert one_answer(result("", decision=True), questions={"call-1": True}).approve
    assert one_answer(result("3"), own=(), questions={"call-1": False}).returned == "3"


def test_an_allowed_call_may_be_changed_and_remembered() -> None:
    entry = result("", decision=Allow({"a": 2}, save=("rule-1",)))
    assert one_answer(entry, own=()) == ToolCallResponse(
        "call-1", "add", approve=True, updated_input={"a": 2}, suggestion_ids=("rule-1",)
    )


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (result("", decision=Deny("Not today.")), "Not today."),
        (result("", decision=False), "Denied by the user."),
    ],
)
def test_a_denied_call_has_a_reason(entry: HistoryMessage, reason: str) -> None:
    assert one_answer(entry, own=()) == ToolCallResponse("call-1", "add", reason=reason)


def test_what_is_no_decision_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        one_answer(result("", decision=7), own=())


def test_the_fate_of_a_call_is_no_decision_whoever_asked() -> None:
    fate = result("The run was cancelled.", fact=True)
    told = ToolCallResponse("call-1", "add", "The run was cancelled.", is_error=True)
    assert one_answer(fate) == told
    assert one_answer(fate, own=()) == told


def test_a_result_of_changed_arguments_tells_the_arguments() -> None:
    said = '[The application ran this call with other arguments: {"a": 2}]'
    edited = {"call-1": '{"a": 2}'}
    assert one_answer(result("3"), edited=edited).returned == f"{said}\n3"
    parts = [{"type": "text", "text": "3"}]
    assert one_answer(result(parts), edited=edited).returned == [
        {"type": "text", "text": said},
        {"type": "text", "text": "3"},
    ]
    assert one_answer(result("3"), edited={"call-2": "{}"}).returned == "3"


def test_calls_are_answered_in_the_order_in_which_they_were_made() -> None:
    calls = [PendingToolCall("call-1", "add"), PendingToolCall("call-2", "add")]
    made = answer_calls(calls, [result("two", "call-2"), result("one", "call-1")], ["add"])
    assert [(found.tool_call_id, found.returned) for found in made] == [
        ("call-1", "one"),
        ("call-2", "two"),
    ]


def test_instructions_stand_behind_the_last_result() -> None:
    results = [ToolCallResponse("call-1", "add", "1"), ToolCallResponse("call-2", "add", "2")]
    denied = ToolCallResponse("call-3", "find", reason="No.")
    first, second, third = add_instructions([*results, denied], "Be brief.")
    assert (first, third) == (results[0], denied)
    assert second.returned == [
        {"type": "text", "text": "2"},
        {"type": "text", "text": "<instructions>\nBe brief.\n</instructions>"},
    ]


def test_decisions_cannot_bring_instructions() -> None:
    denied = ToolCallResponse("call-3", "find", reason="No.")
    assert add_instructions([denied], "Be brief.") == (denied,)


def test_no_instructions_change_nothing() -> None:
    given = ToolCallResponse("call-1", "add", "1")
    assert add_instructions([given], "") == (given,)


# -- for the Letta API --------------------------------------------------------------------------


def test_the_letta_api_is_sent_the_last_message_and_stores_those_before_it() -> None:
    request = as_request([user("one"), HistoryMessage("assistant", "First."), user("two")], "")
    assert request == Payload(
        "two",
        history=({"role": "user", "content": "one"}, {"role": "assistant", "content": "First."}),
    )


def test_the_letta_api_is_told_as_text_what_follows_the_last_user() -> None:
    request = as_request([user("one"), HistoryMessage("assistant", "First.")], "")
    assert request == Payload("Assistant: First.", history=({"role": "user", "content": "one"},))


def test_the_letta_api_stores_the_system_text_first() -> None:
    request = as_request([user("one")], "Be brief.")
    assert request == Payload("one", history=({"role": "system", "content": "Be brief."},))


def test_results_of_calls_that_wait_are_answers_and_no_text() -> None:
    given = ToolCallResponse("call-1", "add", "3")
    request = as_request([result("3"), user("And?")], "", [given])
    assert request == Payload("And?", answers=(given,))


def test_a_result_that_nothing_waits_for_is_told_as_text() -> None:
    request = as_request([result("3"), user("And?")], "")
    assert request == Payload(
        "And?",
        history=({"role": "user", "content": "Result of the tool call call-1: 3"},),
    )


def test_an_error_that_nothing_waits_for_is_told_as_one() -> None:
    assert as_request([result("No.", is_error=True)], "").content == (
        "Error of the tool call call-1: No."
    )


def test_images_behind_the_last_user_stand_beside_the_text() -> None:
    request = as_request([result([{"type": "text", "text": "A dot."}, IMAGE])], "")
    assert request.content == [
        {"type": "text", "text": "Result of the tool call call-1: A dot."},
        IMAGE,
    ]


def test_a_message_without_content_is_not_stored() -> None:
    assert as_messages([user(""), HistoryMessage("assistant", "")]) == []


def test_images_of_an_answer_stand_in_a_users_message() -> None:
    drawn = HistoryMessage("assistant", [{"type": "text", "text": "Here."}, IMAGE], name="bob")
    assert as_messages([drawn]) == [
        {"role": "assistant", "content": "Here.", "name": "bob"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "(Images of the message before.)"}, IMAGE],
        },
    ]


# -- for an App Server --------------------------------------------------------------------------


def test_an_app_server_is_told_everything_in_one_message() -> None:
    request = as_message([user("one"), HistoryMessage("assistant", "First."), user("two")], "")
    assert request.content == [
        {
            "type": "text",
            "text": "<conversation-so-far>\nUser: one\nAssistant: First.\n</conversation-so-far>",
        },
        {"type": "text", "text": "two"},
    ]
    assert (request.history, request.answers) == ((), ())


def test_an_app_server_is_sent_plain_text_where_there_is_nothing_else() -> None:
    assert as_message([user("Hello.")], "").content == "Hello."
    parts = [{"type": "text", "text": "Look."}, IMAGE]
    assert as_message([user(parts)], "").content == parts


def test_an_app_server_is_sent_nothing_where_there_is_nothing() -> None:
    assert as_message([], "").content is None


# -- notes --------------------------------------------------------------------------------------

NOTE = {"type": "text", "text": "<instructions>\nHurry.\n</instructions>"}


def test_a_note_beside_results_is_stored_and_no_message_of_the_users() -> None:
    given = ToolCallResponse("call-1", "add", "3")
    noted = Payload(None, (given,)).with_note("Hurry.")
    assert noted == Payload(
        None,
        (given,),
        ({"role": "system", "content": "<instructions>\nHurry.\n</instructions>"},),
    )


def test_a_note_alone_is_the_message() -> None:
    assert Payload(None).with_note("Hurry.").content == [NOTE]


def test_a_note_goes_behind_images() -> None:
    assert Payload([IMAGE]).with_note("Hurry.").content == [IMAGE, NOTE]


def test_no_note_changes_nothing() -> None:
    assert Payload("Hello.").with_note("") == Payload("Hello.")


def test_a_request_without_content_asks_the_agent_to_go_on() -> None:
    assert Payload(None).with_content() == Payload("Please go on.")


def test_instructions_alone_become_the_message() -> None:
    stored = ({"role": "system", "content": "Be brief."},)
    assert Payload(None, history=stored).with_content() == Payload(
        [{"type": "text", "text": "<instructions>\nBe brief.\n</instructions>"}]
    )


def test_a_request_with_content_or_answers_is_sent_as_it_is() -> None:
    given = ToolCallResponse("call-1", "add", "3")
    assert Payload("Hello.").with_content() == Payload("Hello.")
    assert Payload(None, (given,)).with_content() == Payload(None, (given,))


# -- a whole request ----------------------------------------------------------------------------


def going_on(*new: HistoryMessage, **marker: Any) -> list[HistoryMessage]:
    """A history that the agent has answered once, and these messages after its answer."""
    return [user("one"), answer("First.", [user("one")], **marker), *new]


def asked(*new: HistoryMessage, **marker: Any) -> list[HistoryMessage]:
    """A history in which the agent has called ``add``, and these messages after that."""
    return [user("one"), asking([user("one")], **marker), *new]


@pytest.mark.parametrize("backend", ["rest", "local", "remote"])
def test_only_what_is_new_is_sent(backend: str) -> None:
    context = on_the_way(going_on(user("two")), backend)
    assert build_payload(context, []) == Payload("two")


def test_a_history_of_others_is_stored_where_the_backend_stores_any_message() -> None:
    history = [user("one"), HistoryMessage("assistant", "First."), user("two")]
    assert build_payload(on_the_way(history), []) == Payload(
        "two",
        history=({"role": "user", "content": "one"}, {"role": "assistant", "content": "First."}),
    )


def test_a_history_of_others_is_one_labelled_message_elsewhere() -> None:
    history = [user("one"), HistoryMessage("assistant", "First."), user("two")]
    payload = build_payload(on_the_way(history, "local"), [])
    assert payload == Payload(
        [
            {
                "type": "text",
                "text": "<conversation-so-far>\nUser: one\nAssistant: First."
                "\n</conversation-so-far>",
            },
            {"type": "text", "text": "two"},
        ]
    )


def test_system_text_is_told_until_the_agent_was_told_it() -> None:
    system = HistoryMessage("system", "Be brief.")
    told = {"role": "system", "content": "Be brief."}
    assert build_payload(on_the_way([system, user("one")]), []).history == (told,)
    # The digest of "Be brief.", as the caller's memory and as a marker hold it.
    brief = "b1cc2ec6cf9f"
    assert build_payload(on_the_way([system, user("one")]), [], (brief, None)).history == ()
    known = on_the_way([system, *going_on(user("two"), system=brief)])
    assert build_payload(known, []).history == ()


def test_a_note_goes_with_its_call_alone() -> None:
    context = on_the_way(going_on(user("two")), note="Hurry.")
    assert build_payload(context, []).content == [{"type": "text", "text": "two"}, NOTE]


def test_a_message_that_is_stored_already_is_not_sent_again() -> None:
    context = on_the_way(going_on(user("two")), note="Hurry.", tools=[TOOL])
    stored = context.take(context.route.going_on())
    payload = build_payload(stored, [CALL])
    assert payload.content == "Please go on: my last message has not been answered yet."
    # Whatever waits has no result here, and blocks the conversation.
    assert [found.returned for found in payload.answers] == [
        "The application gave no result for this call."
    ]
    assert payload.history == ()


def test_results_are_answers_to_the_calls_that_wait() -> None:
    context = on_the_way(asked(result("3")), tools=[TOOL])
    assert build_payload(context, context.route.waiting) == Payload(
        None, (ToolCallResponse("call-1", "add", "3"),)
    )


def test_results_that_nothing_waits_for_are_told_as_text() -> None:
    context = on_the_way(asked(result("3")), tools=[TOOL])
    assert build_payload(context, []) == Payload("Result of the tool call call-1: 3")


@pytest.mark.parametrize("backend", ["local", "remote"])
def test_a_turn_begun_anew_is_told_results_as_text(backend: str) -> None:
    # The calls of an App Server wait no longer than their turn.
    context = on_the_way(asked(result("3")), backend, tools=[TOOL])
    payload = build_payload(context, context.route.waiting)
    text = {"type": "text", "text": "Result of the tool call call-1: 3"}
    assert payload == Payload([text])


def test_a_result_and_a_message_go_together() -> None:
    context = on_the_way(asked(result("3"), user("Thanks.")), tools=[TOOL])
    assert build_payload(context, context.route.waiting) == Payload(
        "Thanks.", (ToolCallResponse("call-1", "add", "3"),)
    )


def test_calls_that_nobody_answers_are_explained() -> None:
    context = on_the_way(asked(user("Never mind.")), tools=[TOOL])
    (found,) = build_payload(context, context.route.waiting).answers
    assert (found.returned, found.is_error) == (
        "The application gave no result for this call.",
        True,
    )


def test_the_marker_says_which_calls_are_questions() -> None:
    # The application has a tool of that name too, and yet the agent asked about its own.
    history = asked(result("", decision=True), questions=("call-1",))
    context = on_the_way(history, tools=[TOOL])
    (found,) = build_payload(context, context.route.waiting).answers
    assert found == ToolCallResponse("call-1", "add", approve=True)


def test_the_arguments_of_a_call_that_waits_are_those_of_the_history() -> None:
    broken = PendingToolCall("call-1", "add", '{"a": 1,')
    history = [user("one"), asking([user("one")], broken), user("Never mind.")]
    context = on_the_way(history, tools=[TOOL])
    # The marker names the call without its arguments.
    assert [call.raw_arguments for call in context.route.waiting] != ['{"a": 1,']
    (found,) = build_payload(context, context.route.waiting).answers
    assert '{"a": 1,' in str(found.returned)


def test_an_agent_with_nothing_new_to_read_is_asked_to_go_on() -> None:
    assert build_payload(on_the_way(going_on()), []) == Payload("Please go on.")


def test_building_a_request_changes_nothing() -> None:
    history = asked(result([{"type": "text", "text": "3"}, IMAGE]), user("And?"))
    context = on_the_way(history, tools=[TOOL], note="Hurry.")
    first = build_payload(context, context.route.waiting)
    assert build_payload(context, context.route.waiting) == first
    assert context == on_the_way(history, tools=[TOOL], note="Hurry.")


# -- answers to a paused turn -------------------------------------------------------------------


def test_a_paused_turn_gets_the_results_it_waits_for() -> None:
    context = on_the_way(asked(result("3")), "local", tools=[TOOL])
    assert build_answers(context, [call_message()]) == (ToolCallResponse("call-1", "add", "3"),)


def test_a_paused_turn_is_told_new_instructions_behind_the_last_result() -> None:
    history = [HistoryMessage("system", "Be brief."), *asked(result("3"))]
    (found,) = build_answers(on_the_way(history, "local", tools=[TOOL]), [call_message()])
    assert found.returned == [
        {"type": "text", "text": "3"},
        {"type": "text", "text": "<instructions>\nBe brief.\n</instructions>"},
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"a": 1}', "4"),
        ('{"a": 2}', '[The application ran this call with other arguments: {"a": 2}]\n4'),
    ],
    ids=["as the agent wrote them", "others"],
)
def test_a_paused_turn_is_told_other_arguments_that_a_call_was_run_with(
    arguments: str, told: str
) -> None:
    # The digest of {"a": 1}, which the agent wrote.
    marker = marked(
        inputs=(user("one").digest(),), pending=(("call-1", "add"),), arguments=("2696610e7875",)
    )
    run = PendingToolCall("call-1", "add", arguments)
    reply = HistoryMessage("assistant", "", marker=marker, tool_calls=(run,))
    context = on_the_way([user("one"), reply, result("4")], "local", tools=[TOOL])
    (found,) = build_answers(context, [call_message()])
    assert found.returned == told
