"""Plant secrets in recordings and count those that survive: the figures of docs/testing.md.

    python -m tools.planted [--seed N] [--verbose]

Each of the kinds below is made up anew from the seed and put into each of the places, one recording
each. ``survived``: twelve of its letters in a row can be read from the saved file, as they stand,
after unescaping, joining, unpacking, or as base64 or UTF-16. ``refused``: they can, and the leak
scanner would not let it be saved. Ordinary texts, with nothing in them to hide, are counted when
the sanitizer changes them.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import io
import json
import random
import re
import string
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote, unquote

from letta_adapters.testing import (
    Cassette,
    Interaction,
    LeakError,
    RecordedRequest,
    RecordedResponse,
    SanitizeRules,
    leaks,
    sanitize_cassette,
)
from letta_adapters.testing.recording.pytest_session import make_file_name

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits
LOWER = string.ascii_lowercase + string.digits
URLSAFE = ALNUM + "-_"
JSON = (("content-type", "application/json"),)
# The kind's name: what comes before, the alphabet and the length, what comes after.
PREFIXED = {
    "openai": ("sk-proj-", URLSAFE, 74),
    "openai-old": ("sk-", ALNUM, 48),
    "anthropic": ("sk-ant-api03-", URLSAFE, 93),
    "letta": ("sk-let-", ALNUM, 40),
    "openrouter": ("sk-or-v1-", HEX, 64),
    "stripe": ("sk_live_", ALNUM, 24),
    "stripe-restricted": ("rk_live_", ALNUM, 24),
    "stripe-webhook": ("whsec_", ALNUM, 32),
    "github": ("ghp_", ALNUM, 36),
    "github-app": ("ghs_", ALNUM, 36),
    "github-fine": ("github_pat_", ALNUM, 82),
    "gitlab": ("glpat-", URLSAFE, 20),
    "gitlab-deploy": ("gldt-", URLSAFE, 20),
    "gitlab-runner": ("glrt-", URLSAFE, 20),
    "pypi": ("pypi-AgEIcHlwaS5vcmc", URLSAFE, 60),
    "npm": ("npm_", ALNUM, 36),
    "rubygems": ("rubygems_", HEX, 48),
    "huggingface": ("hf_", ALNUM, 34),
    "groq": ("gsk_", ALNUM, 52),
    "xai": ("xai-", ALNUM, 80),
    "replicate": ("r8_", ALNUM, 37),
    "perplexity": ("pplx-", ALNUM, 48),
    "tavily": ("tvly-", ALNUM, 32),
    "langsmith": ("lsv2_pt_", HEX, 32),
    "pinecone": ("pcsk_", ALNUM, 60),
    "llama-cloud": ("llx-", ALNUM, 48),
    "nvidia": ("nvapi-", URLSAFE, 64),
    "jina": ("jina_", ALNUM, 60),
    "slack-bot": ("xoxb-123456789012-1234567890123-", ALNUM, 24),
    "slack-app": ("xapp-1-A012345-1234567890-", HEX, 64),
    "aws": ("AKIA", UPPER, 16),
    "aws-session": ("ASIA", UPPER, 16),
    "google": ("AIza", URLSAFE, 35),
    "google-client": ("GOCSPX-", URLSAFE, 28),
    "google-access": ("ya29.", URLSAFE, 60),
    "alibaba": ("LTAI", ALNUM, 20),
    "digitalocean": ("dop_v1_", HEX, 64),
    "doppler": ("dp.pt.", ALNUM, 43),
    "databricks": ("dapi", HEX, 32),
    "fly": ("fo1_", URLSAFE, 43),
    "grafana": ("glsa_", ALNUM, 41),
    "heroku": ("HRKU-AA", URLSAFE, 58),
    "linear": ("lin_api_", ALNUM, 40),
    "notion": ("ntn_", ALNUM, 46),
    "postman": ("PMAK-", HEX, 59),
    "pulumi": ("pul-", HEX, 40),
    "sendgrid": ("SG.", URLSAFE, 66),
    "brevo": ("xkeysib-", HEX, 64),
    "sentry": ("sntryu_", HEX, 64),
    "shopify": ("shpat_", HEX, 32),
    "square": ("sq0atp-", URLSAFE, 22),
    "vault": ("hvs.", URLSAFE, 95),
    "planetscale": ("pscale_pw_", ALNUM, 43),
    "age": ("AGE-SECRET-KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
    "figma": ("figd_", URLSAFE, 40),
    "supabase": ("sbp_", HEX, 40),
    "docker": ("dckr_pat_", URLSAFE, 27),
    "atlassian": ("ATATT3", URLSAFE, 180),
    "tailscale": ("tskey-auth-", ALNUM, 30),
    "posthog": ("phc_", ALNUM, 43),
    "twilio": ("SK", HEX, 32),
    "mailgun": ("key-", HEX, 32),
}
# What the sanitizer has no shapes of, and was not tuned on: from TruffleHog's detectors, the shapes
# alone, each as it may be said beside its service's name.
HELD_OUT: dict[str, tuple[tuple[str, str, int], ...]] = {
    "carboninterface": (("", ALNUM, 21),),
    "storyblok": (("", ALNUM, 22), ("tt-", string.digits, 6), ("-", URLSAFE, 20)),
    "jira": (("", ALNUM, 24),),
    "sugester": (("", ALNUM, 32),),
    "bitbucket": (("BBDC-", ALNUM, 44),),
    "apifonica": tuple(("-" * (n > 0), LOWER, size) for n, size in enumerate((11, 4, 4, 4, 12))),
    "lark": (("t-", ALNUM, 40),),
    "brandfetch": (("", ALNUM, 40),),
    "fastly": (("", URLSAFE, 32),),
    "volcengine": (("AKLT", ALNUM, 43),),
    "newrelic": (("NRBR-", ALNUM, 20),),
    "easypost": (("live_", URLSAFE, 40),),
    "launchdarkly": tuple(
        ("-" if n else "api-", LOWER, size) for n, size in enumerate((8, 4, 4, 4, 12))
    ),
    "hotwire": (("", LOWER, 24),),
    "hasura": (("", ALNUM, 64),),
    "ayrshare": tuple(("-" * (n > 0), UPPER, 8) for n in range(4)),
    "accuweather": (("", ALNUM, 32),),
    "twitch": (("", LOWER, 30),),
    "wandb": (("", HEX, 40),),
    "geocode": (("", LOWER, 28),),
    "lokalise": (("", LOWER, 40),),
    "spectral": (("spu-", LOWER, 32),),
    "entra": (("0.A", URLSAFE, 60), (".Ag", URLSAFE, 260)),
    "rancher": (("", LOWER, 54),),
    "amplitude": (("", HEX, 32),),
    "pusher": (("", LOWER, 20),),
    "auth0": (("", URLSAFE, 64),),
    "cloudflare": (("", URLSAFE, 37),),
    "apimatic": (("", URLSAFE, 64),),
    "appsync": (("da2-", LOWER, 26),),
    "netsuite": (("", ALNUM, 64),),
    "faceplusplus": (("", URLSAFE, 32),),
    "roaring": (("", URLSAFE, 28),),
    "smooch": (("", URLSAFE, 86),),
    "solarwinds": (("", URLSAFE, 71),),
    "azure-batch": (("", ALNUM + "+/", 86), ("==", "", 0)),
    "aws-secret": (("", ALNUM + "+/", 40),),
}
# Passwords nobody could know by their form: what stands around them tells.
AROUND = {
    "redis-url": "redis://:{}@cache.internal:6379/0",
    "postgres-url": "postgresql://app:{}@db.internal:5432/x",
    "basic-url": "https://ada:{}@host.internal/",
    "yaml": "password: {}",
    "dotenv": "DB_PASS={}",
    "environment": "export SECRET_KEY={}",
    "python": "password = '{}'",
    "json-text": '"client_secret": "{}"',
    "option": "tool --password {}",
    "query": "https://h.internal/?access_token={}&x=1",
    "ini": "passwd = {}",
    "xml": "<password>{}</password>",
    "prose": "The password is {}",
    "header": "X-Api-Key: {}",
    "bearer": "Authorization: Bearer {}",
    "ruby": "'secret_key' => '{}'",
}


def jwt(rng: random.Random) -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": letters(rng, ALNUM, 12)}]
    coded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    ]
    return ".".join([*coded, letters(rng, URLSAFE, 43)])


def armoured(rng: random.Random) -> str:
    lines = "\n".join(letters(rng, ALNUM + "+/", 64) for _ in range(4))
    kind = "PRIVATE KEY"
    return f"-----BEGIN RSA {kind}-----\n{lines}\n-----END RSA {kind}-----"


def letters(rng: random.Random, alphabet: str, count: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


def kinds(rng: random.Random) -> dict[str, tuple[str, str]]:
    """Return by name the secret itself, and the text that it stands in."""
    made: dict[str, tuple[str, str]] = {}
    for name, (prefix, alphabet, count) in PREFIXED.items():
        secret = prefix + letters(rng, alphabet, count)
        made[name] = secret, secret
    for name, pattern in AROUND.items():
        secret = letters(rng, ALNUM, 7) + str(rng.randrange(10)) + letters(rng, ALNUM, 6)
        made[name] = secret, pattern.format(secret)
    made["jwt"] = (token := jwt(rng)), token
    made["armour"] = (key := armoured(rng)), key
    made["telegram"] = (bot := f"{rng.randrange(10**9, 10**10)}:AA{letters(rng, URLSAFE, 33)}"), bot
    made["azure"] = (azure := f"{letters(rng, ALNUM, 3)}8Q~{letters(rng, URLSAFE, 34)}"), azure
    hook = f"T{letters(rng, UPPER, 10)}/B{letters(rng, UPPER, 10)}/{letters(rng, ALNUM, 24)}"
    made["slack-hook"] = hook, f"https://hooks.slack.com/services/{hook}"
    made["mail"] = (mail := f"{letters(rng, LOWER, 9)}@{letters(rng, LOWER, 8)}.org"), mail
    return made


def held_out(rng: random.Random) -> dict[str, tuple[str, str]]:
    """Return the same for the formats that are not on the sanitizer's list."""
    made: dict[str, tuple[str, str]] = {}
    for name, parts in HELD_OUT.items():
        secret = "".join(start + letters(rng, alphabet, size) for start, alphabet, size in parts)
        made[name] = secret, f"{name} {secret}"
    return made


Place = Callable[[str], Interaction]


def exchange(body: bytes = b"", answer: bytes = b"{}", **other: object) -> Interaction:
    uri = str(other.get("uri", "http://127.0.0.1:8283/v1/x"))
    sent = tuple(other.get("sent", JSON))
    got = tuple(other.get("got", JSON))
    return Interaction(
        RecordedRequest("POST", uri, sent, body), RecordedResponse(200, "OK", got, answer)
    )


def streamed(text: str, size: int) -> bytes:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    events = [
        {"message_type": "assistant_message", "id": "message-1", "content": p} for p in pieces
    ]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def multipart(content: bytes, name: str = "file") -> Interaction:
    head = f'--4f1c-b1\r\nContent-Disposition: form-data; name="{name}"; filename="x.bin"\r\n\r\n'
    kind = (("content-type", "multipart/form-data; boundary=4f1c-b1"),)
    return exchange(head.encode() + content + b"\r\n--4f1c-b1--\r\n", sent=kind)


def zipped(text: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", text)
    return target.getvalue()


def said(text: str) -> bytes:
    return json.dumps(
        {"messages": [{"role": "user", "content": f"Look: {text} and go on."}]}
    ).encode()


SSE = (("content-type", "text/event-stream"),)
GZIP = (*JSON, ("content-encoding", "gzip"))
DEFLATE = (*JSON, ("content-encoding", "deflate"))
BINARY = (("content-type", "application/octet-stream"),)
FORM = (("content-type", "application/x-www-form-urlencoded"),)
NOISE = bytes(range(128, 256))
PLACES: dict[str, Place] = {
    "message": lambda t: exchange(said(t)),
    "answer": lambda t: exchange(answer=said(t)),
    "escaped JSON": lambda t: exchange(said(json.dumps({"arguments": t}))),
    "twice escaped": lambda t: exchange(said(json.dumps(json.dumps({"a": t})))),
    "tool arguments": lambda t: exchange(
        answer=json.dumps({"arguments": json.dumps({"q": t})}).encode()
    ),
    "stream, whole": lambda t: exchange(answer=streamed(t, 10_000), got=SSE),
    "stream, by 5": lambda t: exchange(answer=streamed(f"It is {t} .", 5), got=SSE),
    "stream, by 17": lambda t: exchange(answer=streamed(f"It is {t} .", 17), got=SSE),
    "plain text": lambda t: exchange(t.encode(), sent=(("content-type", "text/plain"),)),
    "base64": lambda t: exchange(said(base64.b64encode(f"see {t} .".encode()).decode())),
    "percent": lambda t: exchange(said(quote(t, safe=""))),
    "query": lambda t: exchange(uri=f"http://127.0.0.1:8283/v1/x?q={quote(t, safe='')}"),
    "path": lambda t: exchange(uri=f"http://127.0.0.1:8283/v1/{quote(t, safe='')}/x"),
    "form": lambda t: exchange(f"q={quote(t, safe='')}".encode(), sent=FORM),
    "latin-1 text": lambda t: exchange(f"caf\xe9 {t} \xfc".encode("latin-1"), sent=BINARY),
    "binary": lambda t: exchange(NOISE + b" " + t.encode() + b" " + NOISE, sent=BINARY),
    "binary answer": lambda t: exchange(
        answer=NOISE + b" " + t.encode() + b" " + NOISE, got=BINARY
    ),
    "UTF-16": lambda t: exchange(f"See {t} .".encode("utf-16"), sent=BINARY),
    "UTF-16 without mark": lambda t: exchange(f"See {t} .".encode("utf-16-le"), sent=BINARY),
    "multipart text": lambda t: multipart(f"See {t} .".encode()),
    "multipart binary": lambda t: multipart(NOISE + b" " + t.encode() + b" " + NOISE),
    "gzip request": lambda t: exchange(gzip.compress(said(t)), sent=GZIP),
    "deflate request": lambda t: exchange(zlib.compress(said(t)), sent=DEFLATE),
    "zip upload": lambda t: multipart(zipped(t)),
    "file name": lambda t: exchange(said("nothing")),
}

ORDINARY = [
    "Please summarise chapter {n} of the report.",
    "The token budget is {n} tokens.",
    "Is the password field required?",
    "My secret: patience and tea.",
    "Use the key-value store, version {n}.",
    "A basic idea, number {n}.",
    "The bearer of good news came at {n}.",
    "See https://example.com/docs/page-{n}?lang=en#section-{n}",
    "commit {n}: Fix the tokenizer",
    "The quick brown fox number {n} jumps.",
    "def get_token(self) -> str: ...",
    "task_list_for_release_{n}",
    "Item SKU-{n}-B costs {n}.50 EUR",
    "Who was Grace Hopper?",
    "ISBN 978-3-16-148410-0",
    "What is {n} times {n}?",
    "CamelCaseIdentifierNumber{n} is a class",
    'data-testid="row-{n}"',
    "API-reference, part {n}",
    "Meet me at 10:{n}",
    "max_tokens: {n}",
    '{{"type": "string", "title": "Password"}}',
    "pass the salt",
    "The session is over.",
    "author: Ada Lovelace",
    "key: value",
    "Authentication: how it works in {n} steps",
    # What looks a little like what a machine made up.
    "Call getUserByIdentifier{n}FromDatabase in src/components/UserProfileCard{n}.tsx",
    "IMG_20240101_12{n}_edited.jpg and Screenshot-2024-01-01-at-12.{n}.png",
    "https://github.com/letta-ai/letta-code/pull/{n}/files#discussion_r{n}",
    "claude-3-5-sonnet-20241022 beats gpt-4o-mini-2024-07-18 in {n} of 9 cases",
    "built for x86_64-unknown-linux-gnu, aarch64-apple-darwin{n} and manylinux_2_17_x86_64",
    "letta_adapters-0.3.{n}-cp311-cp311-manylinux_2_17_x86_64.whl",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    "row1-col2-row3-col4-row5-col{n}",
    "org.springframework.boot.autoconfigure.web.servlet.WebMvcConfig{n}",
    "rs{n} GGATCCGATTACAGATTACAGGCCTTAAGGCC",
    "The address is 0x7f53b1c2d3e4 at line {n}",
    "test_a_call_is_not_made_twice_while_its_run_goes_on_{n}",
    "supercalifragilisticexpialidocious",
    "Donaudampfschifffahrtsgesellschaft{n}",
]


def survives(secret: str, text: str) -> bool:
    """Return whether twelve letters in a row of the secret can be read from ``text``."""
    core = secret.split("-----")[2] if secret.startswith("-----") else secret
    tail = core[-min(len(core), 40) :]
    windows = [tail[at : at + 12] for at in range(max(len(tail) - 11, 1))]
    if any(window in reading for reading in readings(text) for window in windows):
        return True
    return any(base64.b64encode(w.encode()).decode()[2:-4] in text for w in windows)


def readings(text: str) -> list[str]:
    """Yield the file, and the bytes in it that are base64, in the forms they may have."""
    found = [text, text.replace("\\u0000", ""), unquote(text)]
    found.append(text.replace("\\n", "\n").replace('\\"', '"').replace("\\", ""))
    for item in Cassette.loads(text):
        for body in (item.request.body, item.response.body):
            found += [body.decode("latin-1"), body.replace(b"\0", b"").decode("latin-1")]
            found += [plain.decode("latin-1") for plain in inflated(body)]
            deltas = re.findall(r'"content": "((?:[^"\\]|\\.)*)"', body.decode("latin-1"))
            found.append("".join(deltas))
    return found


def inflated(body: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = body.find(b"PK\x03\x04")
    if at >= 0:
        try:
            with zipfile.ZipFile(io.BytesIO(body[at:])) as archive:
                found += [archive.read(name) for name in archive.namelist()]
        except (zipfile.BadZipFile, zlib.error):
            pass
    for window in (31, 15):
        with contextlib.suppress(zlib.error):
            found.append(zlib.decompressobj(window).decompress(body))
    return found


def plant(
    seed: int, *, every: int = 1, unlisted: bool = False, verbose: bool = False
) -> Counter[str]:
    """Return the figures for one seed; with ``every=5`` those of one in five recordings."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    rules = SanitizeRules(environment={})
    made = (held_out(rng) if unlisted else kinds(rng)).items()
    planted = [(kind, *texts, place) for kind, texts in made for place in PLACES]
    for kind, secret, text, place in planted[::every]:
        outcome = _outcome(secret, text, place, rules)
        counts["planted"] += 1
        counts[outcome] += 1
        if verbose and outcome != "gone":
            sys.stdout.write(f"{outcome}: {kind} in {place}\n")
    for _ in range(500 // every):
        text = rng.choice(ORDINARY).format(n=rng.randrange(10, 10_000))
        body = json.dumps({"content": text}).encode()
        clean = sanitize_cassette(Cassette([exchange(body)]), rules=rules)
        counts["ordinary"] += 1
        if clean.interactions[0].request.body != body:
            counts["altered"] += 1
            if verbose:
                sys.stdout.write(f"altered: {text}\n")
    return counts


def _outcome(secret: str, text: str, place: str, rules: SanitizeRules) -> str:
    saved = sanitize_cassette(Cassette([PLACES[place](text)]), rules=rules).dumps()
    name = make_file_name(f"test_it[{text}]") if place == "file name" else ""
    if not survives(secret, saved) and secret[:24] not in name:
        return "gone"
    try:
        leaks.gate(saved + name, environment={})
    except LeakError:
        return "refused"
    return "survived"


def main() -> int:
    """Print the figures; return 1 if a secret survived unseen."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    survived = 0
    for name, unlisted in (("listed formats", False), ("formats held out", True)):
        counts = plant(given.seed, unlisted=unlisted, verbose=given.verbose)
        survived += 0 if unlisted else counts["survived"]
        sys.stdout.write(
            f"{name}: planted {counts['planted']}, survived unseen {counts['survived']}, "
            f"refused by the gate {counts['refused']}; "
            f"ordinary texts {counts['ordinary']}, altered {counts['altered']}\n"
        )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
