// What the preloads know of Letta Code (`letta` 0.34.12) that is not public. The version of each, and
// what happens without it, stand in _compat.py; a test holds that both are the same, and that all of
// it is there in the installed wheel.
"use strict";
module.exports = {
  // Directories and files.
  STATE_DIR: "LETTA_LOCAL_BACKEND_DIR",
  LETTA: ".letta",
  STATE: "lc-local-backend",
  AGENTS: "agents",
  // The user's settings, which a project may have as well.
  SETTINGS: ["settings.json", "settings.local.json"],
  ALWAYS_ASK: "alwaysAsk",

  // The ledger of accepted inputs.
  LEDGERS: "state",
  LEDGER: "input-dispositions-v2.json",
  QUEUED: "queuedInput",
  ENTRIES: "entries",
  ACCEPTED_AT: "acceptedAt",
  CONNECTIONS: "app-server-",
  COMPLETED: { disposition: "started", replayCompleted: true },
  LOCK: ".lock",
  CANDIDATE: "candidate",

  // The children that Letta Code starts as agents of their own.
  ROLE: "LETTA_CODE_AGENT_ROLE",
  SUB_AGENT: "subagent",
  LAUNCH: "LETTA_SUBAGENT_LAUNCH",
  PARENT: "LETTA_PARENT_AGENT_ID",
  TYPE: "type:",
  REFLECTS: "reflection",

  // Places in the source of letta.js, each of which is there once.
  REFLECTION: "function getReflectionSettings(agentId, workingDirectory = process.cwd()) {\n",
  NO_REFLECTION: { trigger: "off", stepCount: 25, merge: "auto", mergeInstructions: "" },
  SYSTEM_INFO: "state: params.state,\n    systemInfoReminderEnabled: ",
  TOLD: "true,",
  STREAM: "const result = this.runStream(",
  // What stands before that, in the same class.
  AROUND: ["async* streamOnce(input) {", "yield providerLettaChunk({", "toPiMessages(input.uiMessages)"],
  // The function that puts variables into the paths that a model asks for.
  EXPAND: "expandFilePath",
  // How it asks git for the state of the directory.
  STATUS: ["status", "--short"],
};
