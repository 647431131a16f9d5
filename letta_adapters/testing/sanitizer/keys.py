"""Recognise the keys and tokens that services hand out, by their forms or by how they look.

The forms are facts, taken from the rule sets of gitleaks and the services' own documentation; each
is the beginning that identifies it and the letters that may follow. Lengths are shorter than the
services' own, since a stream or a log may cut a key. The leak scanner has a list of its own.

A generated key of a service that no list names is known by its look: words, and names made of
words, change between small letters, capitals and digits where one word ends; random letters do so
all over. Runs shorter than twenty letters are in every text, so they do not count.

Internal: not part of the public API.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator

# At least twelve letters follow a prefix, some of them digits, or letters of both cases.
_PREFIXES = """
sk- sk_ rk- rk_ pk- pk_ csk- whsec_ sk.ey pk.ey
gho_ ghp_ ghr_ ghs_ ghu_ github_pat_ GR1348941
glagent- glcbt- gldt- glffct- glft- glimt- gloas- glpat- glptt- glrt- glsoat- _gitlab_session=
pypi- npm_ rubygems_ CLOJARS_
hf_ api_org_ gsk_ xai- r8_ fw_ pplx- tvly- lsv2_pt_ lsv2_sk_ ls__
jina_ pcsk_ llx- nvapi- e2b_
xoxa- xoxb- xoxc- xoxd- xoxe- xoxe. xoxo- xoxp- xoxr- xoxs- xapp-
ABSK bedrock-api-key- AIza GOCSPX- ya29. 1//0
LTAI AKID AKCp cmVmd AQVN y0_
doo_v1_ dop_v1_ dor_v1_ dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.
duffel_test_ duffel_live_ dt0c01. dt0s16.
EZAK EZTK EAAA EAAC EAAM FLWSECK FLWPUBK fo1_ fm1a_ fm1r_ fm2_ fio-u- glc_ glsa_ eyJrIjoi
HRKU- ico- lin_api_ lin_oauth_ ntn_ secret_ PMAK- pnu_ pul- rdme_ tk-us- SG. xkeysib- xsmtpsib-
sntrys_ sntryu_ sm_aat_ sm_pat_ sm_sat_ shippo_test_ shippo_live_ shpat_ shpca_ shppa_ shpss_ sgp_
sq0atp- sq0csp- sq0idp- hvs. hvb. hvr. pscale_tkn_ pscale_oauth_ pscale_pw_ sha256~
AGE-SECRET-KEY-1 ops_eyJ p8e- API- figd_ figu_ sbp_ sb_secret_ nfp_ rnd_ CFPAT- dckr_pat_ dckr_oat_
ATATT3 ATCTT3 ATBB tfp_ bkua_ CCIPAT_ NRAK- NRJS- NRII- NRRA- phc_ phx_ pnu_ pnb_ tskey- atlasv1.
v1.0- access-sandbox- access-development- access-production- pat-na1- pat-eu1-
"""
_STARTS = "|".join(map(re.escape, sorted(set(_PREFIXES.split()), key=len, reverse=True)))
# No letter of a longer word or token stands before; the letter of an escape (\n) may.
_BEFORE = r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrtbf])|(?<=_)(?<=\W_))"
# Words between hyphens have neither digits nor capitals in them.
_RANDOM = r"(?=[\w./+=~-]*?(?:[A-Za-z][0-9]|[0-9][A-Za-z]|[a-z][A-Z]|[A-Za-z]{24}|[0-9]{9}))"

# Every key has one of these parts. Most texts are short words, and looking for each form in them
# takes time.
MAY_HAVE = re.compile(r"[\w+/.~|%-]{12}|://|PRIVATE KEY|(?i:bearer |basic |token )")
SHAPES = (
    re.compile(rf"{_BEFORE}(?:{_STARTS}){_RANDOM}[A-Za-z0-9_+/~-]{{12,}}(?:[.][\w+/=~-]{{6,}})*=*"),
    re.compile(rf"{_BEFORE}(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{{12,}}"),
    re.compile(rf"{_BEFORE}A3-[A-Z0-9]{{6}}(?:-[A-Z0-9]{{5,11}}){{3,6}}"),
    re.compile(rf"{_BEFORE}(?:dapi|SK|key-|fc-|4b1d)[0-9a-f]{{24,}}"),
    re.compile(r"(?<![\w.-])(?:s\.|pa-|cio|oy2|su)(?=[a-z]*[0-9A-Z])[A-Za-z0-9]{24,}(?![\w.-])"),
    re.compile(r"(?<![\w.-])t1\.[\w-]{10,}[=]*\.[\w-]{40,}=*"),
    # JSON web tokens, whole or as their first parts.
    re.compile(rf"{_BEFORE}ey[A-Za-z0-9]{{8,}}\.ey[\w/-]{{8,}}(?:\.[\w/-]*)?"),
    # A bot's number and its token; Discord's, Airtable's, Terraform's, Harness's three parts.
    re.compile(r"(?<![\w-])\d{7,10}:A[A-Za-z0-9_-]{30,}"),
    re.compile(r"(?<![\w-])[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{25,}"),
    re.compile(r"(?<![\w-])pat[A-Za-z0-9]{14}\.[a-f0-9]{32,}"),
    re.compile(r"(?<![\w-])[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{30,}"),
    re.compile(r"(?<![\w-])(?:pat|sat)\.[\w-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}"),
    re.compile(
        r"(?<![\w-])(?:sc|ext|scauth|authress)_[a-z0-9]{5,}\.[a-z0-9]{4,6}\.acc[\w.+/=-]{20,}"
    ),
    # Azure's client secrets, MaxMind's, Mailchimp's, Facebook's.
    re.compile(r"(?<![\w~.-])[\w~.]{3}\dQ~[\w~.-]{28,}"),
    re.compile(r"(?<![\w-])[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk"),
    re.compile(r"(?<![\w-])[0-9a-f]{32}-us\d{1,2}(?!\w)"),
    re.compile(r"(?<![\w-])\d{15,16}[|%][\w-]{27,40}"),
    # Addresses that are secrets themselves.
    re.compile(r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w+/]{20,}"),
    re.compile(r"(?<=/api/webhooks/)\d{10,}/[\w-]{30,}"),
    re.compile(r"(?<=\.webhook\.office\.com/)webhookb2/[\w@/-]{40,}"),
    re.compile(r"(?<=[?&;](?:sig|sas|sv1))=[\w%+/=-]{20,}"),
    re.compile(r"(?:(?<=X-Amz-Signature=)|(?<=X-Goog-Signature=))[0-9a-f]{16,}"),
    # Keys in armour, whole, cut, or one line of escapes.
    re.compile(
        r"-----BEGIN[ A-Z0-9_-]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?s:.*?)(?:-----END[ A-Z0-9_-]{0,40}KEY(?: BLOCK)?-----|\Z)"
    ),
    re.compile(r"PuTTY-User-Key-File-\d: (?s:.*?)(?:Private-MAC: [0-9a-f]+|\Z)"),
    # Credentials in an authorization header.
    re.compile(r"(?i:(?<=bearer )|(?<=token )(?=[\w.~+/-]*\d))[\w.~+/-]{8,}=*"),
    re.compile(r"(?i:(?<=basic ))(?=[A-Za-z+/]*[0-9A-Z=])[A-Za-z0-9+/]{8,}=*"),
    # At the end of a cut text the @ may be missing; then host:port must not count.
    re.compile(r"(?<=://)[^/\s:@\"'\\]*:(?!\d+(?:/|\Z))[^/\s@\"'\\]+(?=@|\Z)"),
    # A name alone before the host, when it is no name.
    re.compile(r"(?<=://)(?=[^/\s:@\"'\\]*\d)[^/\s:@\"'\\]{16,}(?=@)"),
)


# -- how generated keys look --------------------------------------------------------------------

# Longer runs are contents (pictures, signatures), not keys.
_LONGEST = 400
_RUN = re.compile(
    r"(?<![A-Za-z0-9+=_%\\.~-])[A-Za-z0-9_-][A-Za-z0-9_.~-]{18,}[A-Za-z0-9_~-](?![A-Za-z0-9_~-]|\.\w)"
)
# The rest of a base64 text around a run, and the beginnings of pictures, documents and archives.
_RUN_BEFORE = re.compile(r"[A-Za-z0-9+/_-]*\Z")
_RUN_AFTER = re.compile(r"[A-Za-z0-9+/_-]*=*")
_CONTENTS = ("iVBORw0KGgo", "R0lGOD", "UklGR", "JVBERi", "UEsDB", "/9j/")
_SEPARATORS = re.compile(r"[_.~-]+")
# Placeholders, and ids, which are numbered; also several in a row, as a stream's joined texts are.
_KNOWN = re.compile(r"REDACTED|00000000|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}")
# Changes from a small letter to another kind, from a digit to a letter, from a capital to a digit.
_TURN = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[0-9])[A-Za-z]|(?<=[A-Z])[0-9]")
_CHANGE = re.compile(r"(?<=[0-9])[A-Za-z]|(?<=[A-Za-z])[0-9]")
_LEAST = 20
_PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e]+")


def find_generated(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of ``text`` with runs of letters that no person typed."""
    for match in _RUN.finditer(text):
        if _is_random(match[0]) and not _KNOWN.search(match[0]):
            start, end = _whole(text, match)
            if not _is_content(text, start, end):
                # Base64 is replaced as a whole; of a path with a key in it, only the key.
                is_coded = "+" in text[start:end] or text[end - 1] == "="
                yield (start, end) if is_coded else match.span()


def _whole(text: str, match: re.Match[str]) -> tuple[int, int]:
    before = _RUN_BEFORE.search(text, max(match.start() - _LONGEST, 0), match.start())
    after = _RUN_AFTER.match(text, match.end())
    return before.start() if before else match.start(), after.end() if after else match.end()


def _is_content(text: str, start: int, end: int) -> bool:
    whole = text[start:end]
    if whole.startswith(_CONTENTS) or text[max(start - 7, 0) : start] == "base64,":
        return True
    return len(whole) > _LONGEST or (len(whole) > 100 and "+" in whole)


def _is_random(run: str) -> bool:
    letters = _SEPARATORS.sub("", run)
    size = len(letters)
    if size < _LEAST or _says_something(run):
        return False
    small, capital, digit = (bool(re.search(k, letters)) for k in ("[a-z]", "[A-Z]", "[0-9]"))
    # Three kinds of letters mixed at least at every fourth place, as chance does it.
    if small and capital and digit:
        return len(_TURN.findall(letters)) * 4 >= size and _entropy(letters) > 3.3
    # With two kinds of letters, chance changes less often; versions and numbered names do so hardly
    # ever.
    if digit and (small or capital):
        longest = max(len(_CHANGE.findall(part)) for part in _SEPARATORS.split(run))
        return longest >= 3 and len(_CHANGE.findall(letters)) * 6 >= size
    return False


def _says_something(run: str) -> bool:
    """Return whether a run is base64 of a text, which is searched and not replaced as a whole."""
    plain = run.replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return False
    return _PRINTABLE.fullmatch(content) is not None


def _entropy(text: str) -> float:
    """Return the entropy in bits per letter."""
    shares = (count / len(text) for count in Counter(text).values())
    return -sum(share * math.log2(share) for share in shares)
