// Loaded into the runtime (node --require) by letta_adapters, before anything else. Keys of model
// providers, and of the Letta API, come as one line of JSON on stdin, so they are in no environment
// block and no file. Letta Code finds them in process.env as ever, but they are not listed there:
// a shell, an MCP server, a hook or git, which get a copy of the listed variables, do not have them.
// Letta Code's own processes (sub-agents) need them; they get them with this file and git.cjs, in a
// variable that is taken out of their environment again.
"use strict";
const childProcess = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const compat = require("./_compat.cjs");

const HANDED_ON = "LETTA_ADAPTERS_SECRETS";
const BEFORE = "LETTA_ADAPTERS_NODE_OPTIONS";
const LETTA = "LETTA_API_KEY";
const SUB_AGENT = `${compat.LAUNCH}=1`;

function firstLine() {
  const parts = [];
  const part = Buffer.alloc(65536);
  for (;;) {
    let size = 0;
    try {
      size = fs.readSync(0, part, 0, part.length);
    } catch (error) {
      if (error.code === "EAGAIN") {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
        continue;
      }
      if (error.code !== "EOF") throw error;
    }
    parts.push(Buffer.from(part.subarray(0, size)));
    if (size === 0 || part.subarray(0, size).includes(10)) return Buffer.concat(parts).toString();
  }
}

const listed = process.env;
const handedOn = listed[HANDED_ON];
const { folder, secrets: given } =
  handedOn === undefined
    ? { folder: process.cwd(), secrets: JSON.parse(firstLine() || "{}") }
    : JSON.parse(handedOn);
const secrets = new Map(Object.entries(given));
// The directory of letta_adapters' own, for the files that are loaded after this one.
globalThis[Symbol.for("letta-adapters.folder")] = folder;
if (handedOn !== undefined) {
  if (listed[BEFORE]) listed.NODE_OPTIONS = listed[BEFORE];
  else delete listed.NODE_OPTIONS;
  // What the parent gave by name besides.
  if (listed[LETTA]) secrets.set(LETTA, listed[LETTA]);
  for (const name of [HANDED_ON, BEFORE, ...secrets.keys()]) delete listed[name];
}
// Letta Code puts the key of Letta Cloud that is in its settings into the environment of a shell.
const isHidden = (pair) => {
  const name = pair.slice(0, pair.indexOf("=", 1));
  return (name === LETTA || secrets.has(name)) && !(name in listed);
};

// Letta Code puts variables into the paths that a model asks for, and tells it the path.
const expand = new RegExp(`\\b${compat.EXPAND}\\b`);
const forAPath = () => expand.test(new Error().stack);
process.env = new Proxy(listed, {
  get: (target, name) =>
    secrets.has(name) && !(name in target) && !forAPath() ? secrets.get(name) : target[name],
  has: (target, name) => secrets.has(name) || name in target,
  set: (target, name, value) => {
    if (secrets.has(name)) secrets.set(name, String(value));
    else target[name] = value;
    return true;
  },
  deleteProperty: (target, name) => {
    secrets.delete(name);
    delete target[name];
    return true;
  },
});

const quoted = (file) => `"${file.replace(/[\\"]/g, "\\$&")}"`;
const LOADED = [__filename, path.join(__dirname, "git.cjs")].map((file) => `--require ${quoted(file)}`);
const start = childProcess.ChildProcess.prototype.spawn;
childProcess.ChildProcess.prototype.spawn = function (options) {
  if (options.envPairs?.includes(SUB_AGENT)) {
    const isOptions = (pair) => pair.startsWith("NODE_OPTIONS=");
    const before = options.envPairs.find(isOptions)?.slice("NODE_OPTIONS=".length) ?? "";
    options.envPairs = [
      ...options.envPairs.filter((pair) => !isOptions(pair)),
      `NODE_OPTIONS=${[before, ...LOADED].join(" ")}`,
      `${BEFORE}=${before}`,
      `${HANDED_ON}=${JSON.stringify({ folder, secrets: Object.fromEntries(secrets) })}`,
    ];
  } else if (options.envPairs) {
    options.envPairs = options.envPairs.filter((pair) => !isHidden(pair));
  }
  return start.call(this, options);
};
