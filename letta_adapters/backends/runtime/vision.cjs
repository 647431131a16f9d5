// Loaded into the runtime (node --require) by letta_adapters. Of a model without vision Letta Code
// leaves images out, of messages and of tools' results, and tells nobody but the model. Here the turn
// is told: an event names the messages and tool calls whose images the model is not shown (read in
// ../../engine/app_server.py). Our file `images-told` says that it is so; where the place is not found,
// which another version of Letta Code may bring, nothing is changed, and there is no such file.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { registerHooks } = require("node:module");
const compat = require("./_compat.cjs");

const told = path.join(process.cwd(), "images-told");
const begins = compat.STREAM;
const WINDOW = 12000;

const shows = (message) =>
  Array.isArray(message.content) && message.content.some((part) => part?.type === "image");

// What follows the model's last word is new to it; older images were told of when they came.
function omitted(model, messages) {
  try {
    if (model.input.includes("image")) return null;
    const fresh = messages.slice(messages.findLastIndex(({ role }) => role === "assistant") + 1).filter(shows);
    if (fresh.length === 0) return null;
    const named = (key) => fresh.map((message) => message[key]).filter((value) => typeof value === "string");
    return { model: String(model.id), otids: named("otid"), tool_call_ids: named("toolCallId") };
  } catch {
    return null;
  }
}

fs.rmSync(told, { force: true });
globalThis[Symbol.for("letta-adapters.images")] = omitted;

// Node below 22.15 has no such hooks.
const hooks = registerHooks?.({
  load(url, context, next) {
    const loaded = next(url, context);
    if (!url.endsWith("/letta.js") || !Buffer.isBuffer(loaded.source)) return loaded;
    hooks.deregister();
    const { source } = loaded;
    const at = source.indexOf(begins);
    if (at < 0 || source.indexOf(begins, at + 1) >= 0) return loaded;
    const call = /^\((\w+)\.model, /.exec(source.toString("latin1", at + begins.length - 1, at + begins.length + 80));
    const ahead = source.toString("latin1", Math.max(0, at - WINDOW), at);
    if (!call || compat.AROUND.some((text) => !ahead.includes(text))) return loaded;
    const event = 'message_type: "event_message", event_type: "letta_adapters_images_omitted"';
    const telling =
      `const omittedImages = globalThis[Symbol.for("letta-adapters.images")](${call[1]}.model, input.uiMessages); ` +
      `if (omittedImages) yield providerLettaChunk({ ${event}, event_data: omittedImages }); `;
    fs.writeFileSync(told, "", { mode: 0o600 });
    return { ...loaded, source: Buffer.concat([source.subarray(0, at), Buffer.from(telling), source.subarray(at)]) };
  },
});
