// Loaded into the runtime (node --require) by letta_adapters. Letta Code reads all agents when it
// starts, and one torn file would keep it from starting: such a file is left out of the directory
// it sees, so that only that agent is missing (damage.py says so, and `letta-adapters doctor`).
"use strict";
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { syncBuiltinESMExports } = require("node:module");
const compat = require("./_compat.cjs");

const home = process.env.HOME || os.homedir();
const state = process.env[compat.STATE_DIR] || path.join(home, compat.LETTA, compat.STATE);
const agents = path.join(state, compat.AGENTS);
const readdirSync = fs.readdirSync;

const whole = (name) => {
  if (!name.endsWith(".json")) return true;
  try {
    const value = JSON.parse(fs.readFileSync(path.join(agents, name), "utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
};

fs.readdirSync = (folder, ...options) => {
  const found = readdirSync(folder, ...options);
  if (options.length > 0 || path.resolve(String(folder)) !== agents) return found;
  return found.filter(whole);
};
syncBuiltinESMExports();
