"""Internal: define the forms of volatile and private texts, for the sanitizer and the players.

Keys that services hand out are known by their published forms, taken from the rule sets of gitleaks
and the services' own documentation: each is the beginning that identifies it and the letters that
may follow. Lengths are shorter than the services' own, since a stream or a log may cut a key. A
generated key of a service that no list names is known by its look: words, and names made of words,
change between small letters, capitals and digits where one word ends; random letters do so all
over. Runs shorter than twenty letters are in every text, so they do not count.

The leak scanner has its own patterns on purpose: a mistake here must not hide there.
"""

from __future__ import annotations

import base64
import math
import re
from collections import Counter
from collections.abc import Iterator

UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
# Letta's own ids are a word and a uuid; tool-call ids come from the model's API; the last form
# covers hashes and trace ids.
ID_TOKEN = re.compile(
    rf"(?<![0-9A-Za-z])(?:[a-z][a-z0-9_]{{1,30}}-)?{UUID}(?![0-9A-Za-z])"
    r"|(?<![0-9A-Za-z])(?:call|toolu|srvtoolu|chatcmpl|resp|rs|msg|fc|req|gen)[_-]"
    r"(?=[A-Za-z]*[0-9])[0-9A-Za-z]{8,}(?![0-9A-Za-z_-])"
    r"|(?<![0-9A-Za-z])(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{32,64}(?![0-9A-Za-z])"
)

# Keys whose value the client makes up anew for each request.
CLIENT_ID_KEYS = frozenset({"otid", "client_message_id", "idempotency_key"})

MULTIPART_BOUNDARY = re.compile(r"boundary=\"?([^\";\s]+)")
BOUNDARY = "letta-test-boundary"

REDACTED = "REDACTED"
EMAIL = re.compile(r"[A-Za-z0-9_][\w.+'-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
# Addresses of nobody: the sanitizer's placeholder (the last letters of an escape may precede it),
# and the user of git URLs.
SAFE_EMAIL = re.compile(r"git@|[\w.+'-]*user@example\.com\Z")

_NAME = r"([^\s\\/\"'<>|:*?,;()\[\]{}&#%=`!]+)"
# A Windows name may have blanks in it. Then a separator must follow, or any prose would match.
_WINDOWS_NAME = r"((?:[^\s\\/\"'<>|:*?]+ ){1,2}[^\s\\/\"'<>|:*?]+(?=[\\/])|[^\s\\/\"'<>|:*?,;]+)"
HOME_PATHS = (
    re.compile(rf"/(?:home|Users)/+{_NAME}"),
    re.compile(rf"[A-Za-z]:[\\/]+(?:Users|Documents and Settings)[\\/]+{_WINDOWS_NAME}"),
    re.compile(rf"\\+(?:home|Users)\\+{_WINDOWS_NAME}"),
    re.compile(r"(?<![\w./~])~([A-Za-z_][\w-]{2,})(?=/)"),
)
# The path of http://host/home/page is no home directory.
URL_BEFORE = re.compile(r"https?://[^\s?#=\"'<>]*\Z")
ROOT_HOME = re.compile(r"(?<![\w.\\/])/root(?=[/\"'\s:,)\\]|\Z)")

URL_PASSWORD = re.compile(r"://[^/\s:@\"'\\]*:([^/\s@\"'\\]+)@")

_PASS_WORDS = r"pass(?:word|wd|phrase|code)?|pwd|kennwort"
_SECRET_WORDS = (
    r"(?:api|access|secret|private|auth|encryption|signing|master|shared|account|storage|service"
    r"|deploy|license|ssh|client|app|application|consumer|instrumentation|subscription|host)"
    r"[-_ ]?key"
    r"|(?:client|app|webhook|signing|shared|consumer|jwt)?[-_]?secret|api[-_]?token|jwt"
    r"|(?:auth|access|refresh|bearer|id|session|bot|csrf|personal|deploy|user)[-_ ]?token|token"
    r"|authorization|credentials?|cookie|session[-_]?id|dsn|connection[-_]?string"
)
# Matched against a key in lower case, without - and _.
SENSITIVE_KEY = re.compile(
    r"(?:.*(?:apikey|accesskey|secretkey|privatekey|authkey|encryptionkey|signingkey|masterkey"
    r"|sharedkey|accountkey|storagekey|licensekey|deploykey|sshkey|consumerkey|subscriptionkey"
    r"|secret|password|passwd|passphrase|passcode|pwd"
    r"|authtoken|accesstoken|refreshtoken|bearertoken|sessiontoken|bottoken|csrftoken|apitoken)"
    r"|(?:db|user|smtp|admin|root|sql|mysql|pg|redis|ftp|imap|mail|my|new|old)?pass"
    r"|token|idtoken|xtoken|credentials?|authorization|authheader|(?:set)?cookie|dsn"
    r"|connectionstring|proxyauthorization|xbarepassword|clientsecret|jwt)"
)
# Objects whose values are all secret, whatever their keys are called.
SENSITIVE_CONTAINERS = frozenset(
    {"secrets", "env", "env_vars", "environment_variables", "custom_headers"}
    | {"tool_exec_environment_variables", "env_vars_json"}
)
# A cheap test that comes first: most texts have none of these words.
MAY_BE_SENSITIVE = re.compile(
    r"(?i)pass|pwd|kennwort|key|secret|token|jwt|auth|cred|cook|sess|dsn|conn"
)
_NAMED = rf"(?i:{_SECRET_WORDS}|{_PASS_WORDS})"
_FRONT = r"(?<![A-Za-z0-9])(?:[\w-]{0,40}[-_])?"
_PLAIN_VALUE = r"[^\s&\"',;(){}\[\]\\<>]"
_MIXED = r"[A-Za-z][0-9]|[0-9][A-Za-z]|[a-z][A-Z]|[A-Za-z0-9][!@#$%^*+~?][A-Za-z0-9]"
_OPAQUE_VALUE = rf"(?={_PLAIN_VALUE}*?(?:{_MIXED}|[a-z0-9]{{24}}|[0-9]{{8}})){_PLAIN_VALUE}{{6,}}"
# Assignments in prose, source code, query strings, forms and JSON that cannot be parsed. The value
# is the one group that matched.
SENSITIVE_TEXT = re.compile(
    rf"{_FRONT}{_NAMED}[\"'\]]*\s*(?:"
    r"(?:[:=]|:=|=>)\s*[bfru]?[\"']([^\"'\s\\][^\"'\\]{2,})"
    rf"|=[ \t]?({_PLAIN_VALUE}{{4,}})"
    rf"|(?::[ \t]?|[ \t](?:is|was)[ \t])({_OPAQUE_VALUE}))"
    # A password may be a word, so any value counts; a sentence about passwords is no assignment.
    rf"|{_FRONT}(?i:{_PASS_WORDS})[\"'\]]*:[ \t]?(?![a-z]+ |(?:str|string|bool|int)\b)"
    rf"({_PLAIN_VALUE}{{4,}})"
    rf"|--?{_NAMED}[ =]({_PLAIN_VALUE}{{4,}})"
    # The part of a form, an XML element, an attribute, or an argument.
    rf"|name=\"(?:[\w-]{{0,40}}[-_])?{_NAMED}\"(?:\r?\n[\w-]+:[^\r\n]*)*\r?\n\r?\n([^\r\n]+)"
    rf"|<(?:[\w-]*[-_:])?{_NAMED}>([^<]+)<"
    rf"|[\"'](?:[\w-]{{0,40}}[-_])?{_NAMED}[\"'],?\s*(?:value=|,\s*)[\"']([^\"'\\]{{3,}})"
)
HARMLESS_VALUE = re.compile(
    r"(?:REDACTED)+\w{0,7}|none|null|true|false|string|str|object|optional|required|\d{1,7}"
    r"|<[^<>]*>|\$\{?\w+\}?|\*+|\.+|x+"
    # Usual values where nothing is secret. Replacing such words everywhere would wreck a recording.
    r"|password|secret|postgres|changeme|dummy|empty|not-needed|test-?key",
    re.IGNORECASE,
)
ENV_SECRET = re.compile(
    r".*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PASSCODE|CREDENTIAL|WEBHOOK|DSN|JWT|COOKIE)S?"
    r"|.*(?:API|SECRET|PRIVATE|ACCESS|SIGNING|ENCRYPTION|MASTER|SHARED|ACCOUNT|STORAGE|SERVICE"
    r"|DEPLOY|LICENSE|AUTH|CLIENT|SSH)_?KEYS?|(?:.+_)?PASS|.+_(?:PWD|PW|AUTH)"
    r"|.*CONN(?:ECTION)?_?STR(?:ING)?",
    re.IGNORECASE,
)
SECRET_HEADER = re.compile(
    r".*(?:auth|key|token|secret|password|cookie|session|credential).*", re.IGNORECASE
)

LOCAL_URL = re.compile(
    r"(?<=://)(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0|10(?:\.\d{1,3}){3}|192\.168(?:\.\d{1,3}){2}"
    r"|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2}|\[::1?\])(?::\d{1,5})?(?![\w.])"
)
LOCAL_HOST_PORT = re.compile(
    r"(?<![\w./@-])(?:localhost|127(?:\.\d{1,3}){3}|0\.0\.0\.0):\d{2,5}(?!\w)"
)

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_DAY = r"(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?"
_CLOCK = (
    r"(?P<clock>\d{1,2}:\d\d(?::\d\d(?:\.\d{1,9})?)?)(?P<half>\s?[AP]M\b)?"
    r"(?P<zone>Z|\s?(?:UTC|GMT)?[+-]\d\d:?\d\d(?!\d)|\s(?:UTC|GMT)\b)?"
)
ISO_DATE = re.compile(
    r"(?<![\w.-])(?P<date>(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]))"
    rf"(?:[T ]{_CLOCK})?(?![\w-])"
)
PROSE_DATE = re.compile(
    rf"(?<![A-Za-z])(?:(?P<weekday>{_DAY}),?\s)?"
    rf"(?:(?P<month>{_MONTH})\.?\s(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s(?P<year>(?:19|20)\d\d)"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s(?P<month2>{_MONTH})\.?,?\s(?P<year2>(?:19|20)\d\d))"
    rf"(?:,?\s(?:at\s)?{_CLOCK})?(?!\d)"
)
# Every date in prose holds one of these.
PROSE_YEAR = re.compile(r"\s(?:19|20)\d\d")
# The form in which Python prints a datetime, in servers' error texts.
DATETIME_REPR = re.compile(r"(?<=datetime\()(\d{4}, \d{1,2}, \d{1,2})((?:, \d{1,6}){0,4})(?=[,)])")
# A temporary directory of Python's ``tempfile``, which is a new one in every run.
TEMP_DIR = re.compile(r"(?:(?<=/tmp/)|(?<=/T/)|(?<=[\\/]Temp[\\/]))tmp[a-z0-9_]{8}(?![A-Za-z0-9_])")
# Keys of numbers that are seconds since 1970.
EPOCH_KEY = re.compile(r"created|updated|timestamp|time|.*_at|.*_time(?:stamp)?")
# Keys of strings: any point in time under one of them was written by a clock.
STAMP_KEY = re.compile(r"date|created|updated|timestamp|.*_at|.*_time(?:stamp)?")
DURATION_KEY = re.compile(r".*_ns|(?:.*_)?(?:duration|elapsed|latency)(?:_\w+)?|execution_time.*")
# Keys of addresses at which a model or a server of the recording was.
ENDPOINT_KEY = re.compile(
    r"(?:model|embedding|api)_(?:endpoint|base)|base_url|server_url|callback_url|endpoint_url"
)
# Keys of the ids of users and organizations.
OWNER_KEYS = frozenset(
    {"created_by_id", "last_updated_by_id", "organization_id", "user_id", "actor_id"}
)


# -- keys of services ---------------------------------------------------------------------------

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
MAY_HAVE_KEY = re.compile(r"[\w+/.~|%-]{12}|://|PRIVATE KEY|(?i:bearer |basic |token )")
KEY_SHAPES = (
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


def find_generated_keys(text: str) -> Iterator[tuple[int, int]]:
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
