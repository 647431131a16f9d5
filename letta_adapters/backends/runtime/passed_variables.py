"""Internal: the list of environment variables that reach the embedded runtime, and no others do.

The runtime runs git, shells and Node, and each of them is steered by variables that its caller may
hold for another reason: a git hook exports ``GIT_DIR``, a tool sets ``NODE_OPTIONS``,
``LD_PRELOAD`` or ``BASH_ENV``. So its environment is built from the names here and from those that
the user names. Nothing here does I/O.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from letta_adapters.backends.runtime._compat import STATE_DIR


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Directories, languages and the user. These may differ between processes that share a runtime.
PLACES: Final = _names(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TEMP TMP
    XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME XDG_CACHE_HOME XDG_RUNTIME_DIR
    __CF_USER_TEXT_ENCODING DEVELOPER_DIR
    ALLUSERSPROFILE APPDATA COMMONPROGRAMFILES COMMONPROGRAMFILES(X86) COMMONPROGRAMW6432
    COMPUTERNAME COMSPEC DRIVERDATA HOMEDRIVE HOMEPATH LOCALAPPDATA NUMBER_OF_PROCESSORS OS
    PATHEXT PROCESSOR_ARCHITECTURE PROGRAMDATA PROGRAMFILES PROGRAMFILES(X86) PROGRAMW6432
    PSMODULEPATH PUBLIC SYSTEMDRIVE SYSTEMROOT USERDOMAIN USERNAME USERPROFILE WINDIR
    """
)
_LOCALE: Final = "LC_"
# The way to the network: proxies and certificates.
NETWORK: Final = _names(
    """
    HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
    NODE_USE_ENV_PROXY NODE_USE_SYSTEM_CA NODE_EXTRA_CA_CERTS SSL_CERT_FILE SSL_CERT_DIR
    CURL_CA_BUNDLE REQUESTS_CA_BUNDLE AWS_CA_BUNDLE
    """
)
# Letta Code 0.34 reads these to reach a model provider (the tables in its pi-ai library and its
# provider registry), and for the accounts behind Bedrock and Vertex.
PROVIDER_KEYS: Final = _names(
    """
    AI_GATEWAY_API_KEY ANT_LING_API_KEY ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN
    ANTHROPIC_OAUTH_TOKEN AZURE_OPENAI_API_KEY BASETEN_API_KEY CEREBRAS_API_KEY CLOUDFLARE_API_KEY
    COPILOT_GITHUB_TOKEN DEEPSEEK_API_KEY FIREWORKS_API_KEY GEMINI_API_KEY GOOGLE_API_KEY
    GOOGLE_CLOUD_API_KEY GOOGLE_GENERATIVE_AI_API_KEY GROQ_API_KEY HF_TOKEN KIMI_API_KEY
    LLAMA_CPP_API_KEY LMSTUDIO_API_KEY META_API_KEY MINIMAX_API_KEY MINIMAX_CN_API_KEY
    MISTRAL_API_KEY MOONSHOT_API_KEY NVIDIA_API_KEY OLLAMA_API_KEY OLLAMA_LOCAL_API_KEY
    OPENAI_API_KEY OPENCODE_API_KEY OPENROUTER_API_KEY QWEN_TOKEN_PLAN_API_KEY
    QWEN_TOKEN_PLAN_CN_API_KEY RADIUS_API_KEY TOGETHER_API_KEY TYPESAFE_API_KEY XAI_API_KEY
    XIAOMI_API_KEY XIAOMI_TOKEN_PLAN_AMS_API_KEY XIAOMI_TOKEN_PLAN_CN_API_KEY
    XIAOMI_TOKEN_PLAN_SGP_API_KEY ZAI_API_KEY ZAI_CODING_API_KEY ZAI_CODING_CN_API_KEY ZHIPU_API_KEY
    AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_BEARER_TOKEN_BEDROCK
    """
)
PROVIDER_PLACES: Final = _names(
    """
    GOOGLE_GENERATIVE_AI_BASE_URL LLAMACPP_BASE_URL LLAMA_CPP_BASE_URL LMSTUDIO_BASE_URL
    MINIMAX_BASE_URL MOONSHOT_BASE_URL OLLAMA_BASE_URL OLLAMA_CLOUD_BASE_URL OPENROUTER_BASE_URL
    AZURE_OPENAI_API_VERSION AZURE_OPENAI_BASE_URL AZURE_OPENAI_DEPLOYMENT_NAME_MAP
    AZURE_OPENAI_ENDPOINT AZURE_OPENAI_RESOURCE_NAME CLOUDFLARE_ACCOUNT_ID CLOUDFLARE_GATEWAY_ID
    AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_DEFAULT_REGION
    AWS_PROFILE AWS_REGION AWS_ROLE_ARN AWS_SHARED_CREDENTIALS_FILE AWS_CONFIG_FILE
    AWS_WEB_IDENTITY_TOKEN_FILE GCLOUD_PROJECT GOOGLE_APPLICATION_CREDENTIALS
    GOOGLE_CLOUD_LOCATION GOOGLE_CLOUD_PROJECT GOOGLE_CLOUD_QUOTA_PROJECT
    """
)

# The damage that a name in `env` or `inherit_env` would do, and the option to use instead.
_DATA_DIR: Final = "say data_dir=... instead"
_API: Final = "say api=Rest(base_url=..., api_key=...) instead"
_GIT: Final = "it would lead git of the agent's memory to another repository or configuration"
_REFUSED: Final[Mapping[str, str]] = {
    "HOME": _DATA_DIR,
    "USERPROFILE": _DATA_DIR,
    STATE_DIR: _DATA_DIR,
    "LETTA_BASE_URL": _API,
    "LETTA_API_KEY": _API,
    # The output of `git rev-parse --local-env-vars`, and variables that replace git's own files.
    **dict.fromkeys(
        _names(
            """
            GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG GIT_OBJECT_DIRECTORY GIT_DIR GIT_WORK_TREE
            GIT_IMPLICIT_WORK_TREE GIT_GRAFT_FILE GIT_INDEX_FILE GIT_NO_REPLACE_OBJECTS
            GIT_REPLACE_REF_BASE GIT_PREFIX GIT_INTERNAL_SUPER_PREFIX GIT_SHALLOW_FILE
            GIT_COMMON_DIR GIT_NAMESPACE GIT_QUARANTINE_PATH GIT_EXEC_PATH GIT_TEMPLATE_DIR
            """
        ),
        _GIT,
    ),
}
_REFUSED_PREFIXES: Final = {"GIT_CONFIG_": _GIT, "LETTA_ADAPTERS_": "it is this package's own"}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.()]*")


def check_name(name: object) -> str:
    """Return ``name`` if ``Local(env=..., inherit_env=...)`` may hold it.

    Raises:
        ValueError: It is no name of a variable, or the runtime's own; the text shows no value.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        # Somebody may have written NAME=value; the value may be a secret and stays out.
        shown = repr(name.partition("=")[0]) if isinstance(name, str) else type(name).__name__
        raise ValueError(f"{shown} is not the name of an environment variable")
    why = _REFUSED.get(name.upper())
    for prefix, reason in _REFUSED_PREFIXES.items():
        if name.upper().startswith(prefix):
            why = reason
    if why:
        raise ValueError(f"{name} cannot be given: {why}")
    return name


def is_secret(name: str) -> bool:
    """Return whether the runtime alone needs it, and none of the processes it starts."""
    return name in PROVIDER_KEYS or name == "LETTA_API_KEY"


def is_place(name: str) -> bool:
    """Return whether this variable may differ between processes that share a runtime."""
    return name in PLACES or name.startswith(_LOCALE)


def select_inherited(
    environ: Mapping[str, str], *, named: Iterable[str] = (), providers: bool = True
) -> dict[str, str]:
    """Return the part of ``environ`` that the runtime inherits.

    Args:
        environ: The caller's environment.
        named: More names, from ``Local(inherit_env=...)``; one that is not set is left out.
        providers: Also the keys and addresses of model providers. They are left out if a Letta API
            elsewhere calls the models.
    """
    if sys.platform == "win32":  # where names have no case, and Python shows capitals
        named = [name.upper() for name in named]
    names = PLACES | NETWORK | frozenset(named) | {STATE_DIR}
    if providers:
        names |= PROVIDER_KEYS | PROVIDER_PLACES
    return {
        name: value for name, value in environ.items() if name in names or name.startswith(_LOCALE)
    }
