"""Define the forms of volatile and private texts, shared by the sanitizer and the players.

The leak scanner has its own patterns on purpose: a mistake here must not hide there.

Internal: not part of the public API.
"""

from __future__ import annotations

import re

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
