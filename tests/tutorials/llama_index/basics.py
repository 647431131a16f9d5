"""Tutorials about the LLM itself: what it says, in which pieces, and as which objects."""

from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from tests.tutorials.llama_index.stage import Fill, Stage, calls, tutorial


@tutorial(
    "Paris.",
    "One two three.",
    "Ahoy!",
    "Aye aye.",
    "Four five.",
    "Six.",
    "Seven eight nine.",
    recorded=True,
)
def asking_an_llm(stage: Stage) -> Any:
    """Prompts and chats, whole and in pieces, in both colours."""
    llm = stage.llm()
    pirate = ChatMessage(role="system", content="You are a pirate.")
    hello = ChatMessage(role="user", content="Say hello.")
    whole = llm.complete("What is the capital of France?")
    pieces = list(llm.stream_complete("Count to three."))
    first = llm.chat([pirate, hello])
    again = [pirate, hello, first.message, ChatMessage(role="user", content="Set sail!")]
    second = llm.chat(again)
    streamed = list(llm.stream_chat([ChatMessage(role="user", content="Go on counting.")]))

    async def in_the_other_colour() -> list[str]:
        one = await llm.acomplete("And then?")
        stream = await llm.astream_chat([ChatMessage(role="user", content="And then?")])
        return [one.text, "".join([part.delta or "" async for part in stream])]

    return {
        "complete": whole.text,
        "pieces": [piece.text for piece in pieces if piece.delta],
        "deltas": "".join(piece.delta or "" for piece in pieces),
        "chat": [first.message, second.message],
        "streamed": streamed[-1].message,
        "later": stage.run(in_the_other_colour()),
    }


@tutorial(
    calls("multiply", a=6, b=7),
    calls("multiply", a=2, b=3),
    calls("multiply", a=5, b=5),
    recorded=True,
)
def calling_tools(stage: Stage) -> Any:
    """An LLM chooses a tool; the application runs it."""

    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        stage.note("multiply", a, b)
        return a * b

    tool = FunctionTool.from_defaults(multiply)
    llm = stage.llm()
    response = llm.chat_with_tools([tool], user_msg="What is 6 times 7?")
    chosen = llm.get_tool_calls_from_response(response)
    results = [tool(**call.tool_kwargs).content for call in chosen]
    at_once = llm.predict_and_call([tool], "What is 2 times 3?")
    *_, last = llm.stream_chat_with_tools([tool], user_msg="What is 5 times 5?")
    streamed = llm.get_tool_calls_from_response(last)
    return {
        "chosen": [(call.tool_name, call.tool_kwargs) for call in chosen],
        "results": results,
        "at once": str(at_once),
        "streamed": [(call.tool_name, call.tool_kwargs) for call in streamed],
    }


class Dish(BaseModel):
    """A dish on a menu."""

    name: str = Field(description="what it is called")
    price: float = Field(description="in euros")


class Menu(BaseModel):
    """A menu."""

    restaurant: str
    dishes: list[Dish]


SOUP = {"name": "soup", "price": 4.5}
BREAD = {"name": "bread", "price": 1.0}


@tutorial(
    Fill("Menu", {"restaurant": "Ratatouille", "dishes": [SOUP]}),
    Fill("Menu", {"restaurant": "Moe's", "dishes": [BREAD]}),
    Fill("Dish", SOUP),
    Fill("Menu", {"restaurant": "Chez Max", "dishes": [SOUP, BREAD]}),
    recorded=True,
)
def structured_outputs(stage: Stage) -> Any:
    """Answers that are objects."""
    llm = stage.llm()
    structured = llm.as_structured_llm(Menu)
    chat = structured.chat([ChatMessage(role="user", content="A menu for Ratatouille, please.")])
    text = structured.complete("A menu for Moe's, please.")
    prompt = PromptTemplate("Invent a dish for {season}.")
    dish = llm.structured_predict(Dish, prompt, season="winter")
    template = ChatPromptTemplate.from_messages(
        [("system", "You invent menus."), ("user", "A menu for {name}, please.")]
    )
    parts = list(llm.stream_structured_predict(Menu, template, name="Chez Max"))
    return {
        "chat": chat.raw,
        "text": text.raw,
        "predicted": dish,
        "streamed": parts[-1],
        "grows": sorted({len(part.dishes or ()) for part in parts}),
    }


class Album(BaseModel):
    """A music album."""

    title: str
    artist: str
    songs: list[str]


MOON = {"title": "Moon", "artist": "The Tides", "songs": ["Ebb", "Flow"]}
SUN = {"title": "Sun", "artist": "The Tides", "songs": ["Dawn"]}


@tutorial(calls("Album", **MOON), '{"title": "Sun", "artist": "The Tides", "songs": ["Dawn"]}')
def extraction_programs(stage: Stage) -> Any:
    """Data out of prose: by a function, and by words alone."""
    llm = stage.llm()
    text = "{text}\nWhich album is that?"
    by_function = FunctionCallingProgram.from_defaults(
        output_cls=Album, prompt_template_str=text, llm=llm
    )
    by_words = LLMTextCompletionProgram.from_defaults(
        output_cls=Album, prompt_template_str=text, llm=llm
    )
    return {
        "by function": by_function(text="The Tides released Moon, with Ebb and Flow."),
        "by words": by_words(text="The Tides released Sun, with Dawn."),
    }
