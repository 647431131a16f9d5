"""What volatile and private things look like: the vocabulary the sanitizer and the players share.

The leak scanner has its own, on purpose: a mistake here must not hide there.
"""

from __future__ import annotations

import re

UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
# Letta's own ids are a word and a uuid; tool-call ids come from the model's API; the last are
# hashes and trace ids.
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
# Nobody's: our own placeholder (an escape's last letters may precede it), and git's URLs.
SAFE_EMAIL = re.compile(r"git@|[\w.+'-]*user@example\.com\Z")

_NAME = r"([^\s\\/\"'<>|:*?,;()\[\]{}&#%=`!]+)"
# A Windows name may have blanks in it; then a separator must follow, or prose would count.
_WINDOWS_NAME = r"((?:[^\s\\/\"'<>|:*?]+ ){1,2}[^\s\\/\"'<>|:*?]+(?=[\\/])|[^\s\\/\"'<>|:*?,;]+)"
HOME_PATHS = (
    re.compile(rf"/(?:home|Users)/+{_NAME}"),
    re.compile(rf"[A-Za-z]:[\\/]+(?:Users|Documents and Settings)[\\/]+{_WINDOWS_NAME}"),
    re.compile(rf"\\+(?:home|Users)\\+{_WINDOWS_NAME}"),
    re.compile(r"(?<![\w./~])~([A-Za-z_][\w-]{2,})(?=/)"),
)
# http://host/home/page is no home directory.
URL_BEFORE = re.compile(r"https?://[^\s?#=\"'<>]*\Z")
ROOT_HOME = re.compile(r"(?<![\w.\\/])/root(?=[/\"'\s:,)\\]|\Z)")

KEY_LIKE = (
    re.compile(r"(?<![A-Za-z0-9])(?:sk|rk|pk)[-_](?=[\w-]*[0-9])[\w-]{12,}"),
    re.compile(r"(?<![A-Za-z0-9])(?:gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_\w{20,})"),
    re.compile(r"(?<![A-Za-z0-9])(?:glpat|pypi|xox[abeprs])-[\w-]{10,}"),
    re.compile(r"(?<![A-Za-z0-9])(?:hf|npm)_[A-Za-z0-9]{20,}"),
    re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}"),
    re.compile(r"(?<![A-Za-z0-9])(?:AIza|ya29\.)[\w-]{20,}"),
    re.compile(r"(?<![A-Za-z0-9])eyJ[\w-]{8,}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*KEY-----|\Z)"),
    re.compile(r"(?<=Bearer )[\w.~+/-]{8,}=*"),
    re.compile(r"(?<=Basic )(?=[A-Za-z+/]*[0-9A-Z=])[A-Za-z0-9+/]{8,}=*"),
    # At the end of a cut text the @ may be missing; then host:port must not count.
    re.compile(r"(?<=://)[^/\s:@\"'\\]+:(?!\d+(?:/|\Z))[^/\s@\"'\\]+(?=@|\Z)"),
)

URL_PASSWORD = re.compile(r"://[^/\s:@\"'\\]+:([^/\s@\"'\\]+)@")

_SECRET_WORDS = (
    r"(?:api|access|secret|private|auth|encryption)[-_]?key|(?:client|app)?[-_]?secret"
    r"|pass(?:word|wd|phrase)|(?:auth|access|refresh|bearer|id|session|bot|csrf)[-_]?token|token"
    r"|authorization|credentials?|cookie|dsn|connection[-_]?string"
)
# Squashed: lower case, without - and _.
SENSITIVE_KEY = re.compile(
    r"(?:.*(?:apikey|accesskey|secretkey|privatekey|authkey|encryptionkey|secret|password|passwd"
    r"|passphrase|authtoken|accesstoken|refreshtoken|bearertoken|sessiontoken|bottoken|csrftoken)"
    r"|token|idtoken|xtoken|credentials?|authorization|authheader|(?:set)?cookie|dsn"
    r"|connectionstring|proxyauthorization|xbarepassword)"
)
SENSITIVE_CONTAINERS = frozenset(
    {"secrets", "env", "env_vars", "environment_variables", "custom_headers"}
    | {"tool_exec_environment_variables", "env_vars_json"}
)
# In prose, source code, query strings and JSON nobody could parse: the value is group 1 or 2.
SENSITIVE_TEXT = re.compile(
    rf"(?<![A-Za-z])(?:[\w-]*[-_])?(?:{_SECRET_WORDS})[\"']?\s*(?:"
    r"[:=]\s*[\"']([^\"'\s\\][^\"'\\]{2,})|=([^\s&\"',;(){}\[\]\\<>]{4,}))",
    re.IGNORECASE,
)
HARMLESS_VALUE = re.compile(
    r"(?:REDACTED)+\w{0,7}|none|null|true|false|string|str|object|optional|required|\d{1,7}"
    r"|<[^<>]*>|\$\{?\w+\}?|\*+|\.+|x+"
    # What people put where nothing is secret; hunting such words would wreck a recording.
    r"|password|secret|postgres|changeme|dummy|empty|not-needed|test-?key",
    re.IGNORECASE,
)
ENV_SECRET = re.compile(
    r".*(?:API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PRIVATE_KEY|ACCESS_KEY|CREDENTIALS?)S?",
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
# How Python shows one, in servers' error texts.
DATETIME_REPR = re.compile(r"(?<=datetime\()(\d{4}, \d{1,2}, \d{1,2})((?:, \d{1,6}){0,4})(?=[,)])")
# Made anew in every run (``tempfile``).
TEMP_DIR = re.compile(r"(?:(?<=/tmp/)|(?<=/T/)|(?<=[\\/]Temp[\\/]))tmp[a-z0-9_]{8}(?![A-Za-z0-9_])")
EPOCH_KEY = re.compile(r"created|updated|timestamp|time|.*_at|.*_time(?:stamp)?")
DURATION_KEY = re.compile(r".*_ns|(?:.*_)?(?:duration|elapsed|latency)(?:_\w+)?|execution_time.*")
ENDPOINT_KEY = re.compile(
    r"(?:model|embedding|api)_(?:endpoint|base)|base_url|server_url|callback_url|endpoint_url"
)
OWNER_KEYS = frozenset(
    {"created_by_id", "last_updated_by_id", "organization_id", "user_id", "actor_id"}
)
