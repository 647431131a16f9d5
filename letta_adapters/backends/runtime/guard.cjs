// Loaded into the runtime (node --require) by letta_adapters. Files in a working directory grant
// nothing and run nothing: of a project's settings (`.letta/settings.json`, `settings.local.json`)
// the runtime sees what forbids, not the permissions, hooks and reflection settings they hold; and a
// rule to ask about every tool is there that no file has. Nothing is written anywhere for it.
// The runtime reads settings with fs.readFileSync alone, its tools read files otherwise (`letta`
// 0.34), so an agent that may read such a file sees it as it is.
"use strict";
const childProcess = require("node:child_process");
const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const promises = require("node:fs/promises");
const { registerHooks, syncBuiltinESMExports } = require("node:module");
const { promisify } = require("node:util");
const compat = require("./_compat.cjs");

const home = process.env.HOME || os.homedir();
const letta = path.join(home, compat.LETTA);
const state = process.env[compat.STATE_DIR] || path.join(letta, compat.STATE);

// -- settings ------------------------------------------------------------------------------------

const own = path.join(letta, compat.SETTINGS[0]);
// A second place for the user's settings, which only permissions are read from.
const asking = path.join(process.env.XDG_CONFIG_HOME || path.join(home, ".config"), "letta", compat.SETTINGS[0]);
// Rules for tools with paths or commands are told apart by their names; `*` is for the others.
const everything = ["*", "Bash", "Read", "Write", "Edit", "Glob", "Grep", "ListDir"];
const child = process.env[compat.ROLE] === compat.SUB_AGENT;

const { existsSync, readFileSync, writeFileSync } = fs;
const isRecord = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function parsed(file) {
  try {
    const value = JSON.parse(readFileSync(file, "utf8"));
    return isRecord(value) ? value : {};
  } catch {
    return {};
  }
}

function isProject(file) {
  if (typeof file !== "string" || !compat.SETTINGS.includes(path.basename(file))) return false;
  return path.basename(path.dirname(file)) === compat.LETTA && path.resolve(file) !== own;
}

const isAsking = (file) => !child && typeof file === "string" && path.resolve(file) === asking;

function shown(file) {
  const { permissions } = parsed(file);
  if (isProject(file)) return Array.isArray(permissions?.deny) ? { permissions: { deny: permissions.deny } } : {};
  const given = isRecord(permissions) ? permissions : {};
  const rules = Array.isArray(given[compat.ALWAYS_ASK]) ? given[compat.ALWAYS_ASK] : [];
  return { permissions: { ...given, [compat.ALWAYS_ASK]: [...rules, ...everything] } };
}

fs.readFileSync = function (file, ...rest) {
  if (!isAsking(file) && !(isProject(file) && existsSync(file))) return readFileSync.call(this, file, ...rest);
  const text = JSON.stringify(shown(file));
  const encoding = typeof rest[0] === "string" ? rest[0] : rest[0]?.encoding;
  return encoding ? text : Buffer.from(text);
};
fs.existsSync = function (file) {
  return isAsking(file) || existsSync.call(this, file);
};
// What was not shown is not lost when the runtime writes the file anew.
fs.writeFileSync = function (file, data, ...rest) {
  if (!isProject(file) || typeof data !== "string") return writeFileSync.call(this, file, data, ...rest);
  let whole = data;
  try {
    whole = JSON.stringify({ ...parsed(file), ...JSON.parse(data) }, null, 2);
  } catch {}
  return writeFileSync.call(this, file, whole, ...rest);
};

// -- skills ------------------------------------------------------------------------------------------

// The first words of every skill go to the model. One that is a link to some other file is none.
const { readFile } = promises;
promises.readFile = async function (file, ...rest) {
  if (typeof file === "string" && /^skill\.md$/i.test(path.basename(file))) {
    const real = fs.realpathSync(file);
    if (!/^skill\.md$/i.test(path.basename(real))) {
      throw Object.assign(new Error(`ENOENT: no skill, but a link to another file: ${file}`), { code: "ENOENT" });
    }
  }
  return readFile.call(this, file, ...rest);
};

// -- the runtime's own git in the user's directories -----------------------------------------------

// To tell the model where it is, the runtime asks git. A repository's configuration names commands
// that git then runs: to watch files, to check signatures, to fetch what is missing; and filters,
// which `status` runs and nothing but leaving it out prevents.
const harmless = [
  ["core.fsmonitor", "false"],
  ["log.showSignature", "false"],
];

function isElsewhere(cwd) {
  if (typeof cwd !== "string") return false;
  const inside = (root) => !path.relative(root, path.resolve(cwd)).startsWith("..");
  return !inside(letta) && !inside(state);
}

function hardened(options) {
  const env = { ...(options.env || process.env), GIT_NO_LAZY_FETCH: "1", GIT_OPTIONAL_LOCKS: "0" };
  let count = Number(env.GIT_CONFIG_COUNT) || 0;
  for (const [key, value] of harmless) {
    env[`GIT_CONFIG_KEY_${count}`] = key;
    env[`GIT_CONFIG_VALUE_${count}`] = value;
    count += 1;
  }
  return { ...options, env: { ...env, GIT_CONFIG_COUNT: String(count) } };
}

function guarded(file, args, options) {
  if (file !== "git" || !Array.isArray(args) || !isElsewhere(options?.cwd)) return [file, args, options];
  if (args.join(" ") === compat.STATUS.join(" ")) return ["git", ["--no-such-option"], options];
  return [file, args, hardened(options)];
}

const { execFile, execFileSync } = childProcess;
const execFileAsync = execFile[promisify.custom];
childProcess.execFileSync = function (file, args, options) {
  return execFileSync.apply(this, Array.isArray(args) ? guarded(file, args, options) : arguments);
};
childProcess.execFile = function (file, args, options, ...rest) {
  if (!Array.isArray(args) || !isRecord(options)) return execFile.apply(this, arguments);
  return execFile.call(this, ...guarded(file, args, options), ...rest);
};
childProcess.execFile[promisify.custom] = function (file, args, options) {
  return execFileAsync.apply(this, Array.isArray(args) ? guarded(file, args, options) : arguments);
};
// -- reflection --------------------------------------------------------------------------------------

// After some turns Letta Code starts a child that looks through what was said and edits the agent's
// memory, with a shell that nobody is asked about. It does so only for agents whose file is in our
// directory `reflection` (the same names are in ../app_server/switches.py): the settings it asks
// itself are answered from there, and without a file the child is not started, in whatever way.
const folder = path.join(process.cwd(), "reflection");
const present = path.join(folder, "present");
const named = (agent) => crypto.createHash("sha256").update(String(agent)).digest("hex");

function wanted(agent, cwd) {
  const off = { ...compat.NO_REFLECTION };
  if (!agent || fs.existsSync(path.join(folder, named(cwd)))) return off;
  const { trigger, step_count: stepCount } = parsed(path.join(folder, named(agent)));
  return typeof trigger === "string" && stepCount > 0 ? { ...off, trigger, stepCount } : off;
}

const asks = compat.REFLECTION;
const answered = `${asks}  return globalThis[Symbol.for("letta-adapters.reflection")](agentId, workingDirectory);\n`;
if (!child) {
  globalThis[Symbol.for("letta-adapters.reflection")] = wanted;
  fs.rmSync(present, { force: true });
  // Node below 22.15 has no such hooks.
  const hooks = registerHooks?.({
    load(url, context, next) {
      const loaded = next(url, context);
      if (!url.endsWith("/letta.js") || !Buffer.isBuffer(loaded.source)) return loaded;
      hooks.deregister();
      const at = loaded.source.indexOf(asks);
      if (at < 0 || loaded.source.indexOf(asks, at + 1) >= 0) return loaded;
      fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
      writeFileSync(present, "");
      const rest = loaded.source.subarray(at + asks.length);
      return { ...loaded, source: Buffer.concat([loaded.source.subarray(0, at), Buffer.from(answered), rest]) };
    },
  });
}

const { spawn } = childProcess;
const reflection = new RegExp(`^${compat.TYPE}${compat.REFLECTS}\\b`);
childProcess.spawn = function (command, args, options) {
  const env = Array.isArray(args) ? options?.env : undefined;
  const reflects = env?.[compat.ROLE] === compat.SUB_AGENT && args.some((arg) => reflection.test(arg));
  if (!reflects || wanted(env[compat.PARENT], options.cwd).trigger !== "off") {
    return spawn.apply(this, arguments);
  }
  const refused = "process.stderr.write('reflection was not asked for\\n'); process.exit(1)";
  return spawn.call(this, process.execPath, ["-e", refused], options);
};
syncBuiltinESMExports();
