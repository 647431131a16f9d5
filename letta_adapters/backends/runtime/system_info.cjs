// Loaded into the runtime (node --require) by letta_adapters. Letta Code's own processes can be told
// not to put "system info" reminders (the device, the directory, the agent's id) before a message;
// over the App Server the same switch is fixed to on. Here it becomes a question per conversation:
// it is off where our directory `no-system-info` has a file of the conversation's name (the same
// rule is in ../app_server/switches.py). Where the switch is not found, which another version of
// Letta Code may bring, nothing is changed, and there is no such directory.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { registerHooks } = require("node:module");
const compat = require("./_compat.cjs");

const folder = path.join(process.cwd(), "no-system-info");
const before = compat.SYSTEM_INFO;
const switched = Buffer.from(`${before}${compat.TOLD}`);
const asked = Buffer.from(`${before}globalThis[Symbol.for("letta-adapters.system-info")](params),`);

fs.rmSync(folder, { recursive: true, force: true });
globalThis[Symbol.for("letta-adapters.system-info")] = ({ agentId, conversationId }) => {
  const name = crypto.createHash("sha256").update(`${agentId}\n${conversationId}`).digest("hex");
  return !fs.existsSync(path.join(folder, name));
};

// Node below 22.15 has no such hooks.
const hooks = registerHooks?.({
  load(url, context, next) {
    const loaded = next(url, context);
    if (!url.endsWith("/letta.js") || !Buffer.isBuffer(loaded.source)) return loaded;
    hooks.deregister();
    const at = loaded.source.indexOf(switched);
    if (at < 0 || loaded.source.indexOf(switched, at + 1) >= 0) return loaded;
    fs.mkdirSync(folder, { mode: 0o700 });
    const rest = loaded.source.subarray(at + switched.length);
    return { ...loaded, source: Buffer.concat([loaded.source.subarray(0, at), asked, rest]) };
  },
});
