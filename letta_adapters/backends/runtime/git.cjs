// Loaded into the runtime (node --require) by letta_adapters: what git does when Letta Code itself
// calls it for an agent's memory. It sees none of the user's hooks, templates and signing there
// (git.py has the files and the reasons). Memory is cloned and pushed only where the user named the
// address, and a key is never on a command line.
"use strict";
const childProcess = require("node:child_process");
const fs = require("node:fs");
const { syncBuiltinESMExports } = require("node:module");
const path = require("node:path");

const folder = path.join(globalThis[Symbol.for("letta-adapters.folder")], "git");
const rules = JSON.parse(fs.readFileSync(path.join(folder, "rules.json"), "utf8"));
const NETWORK = new Set(["clone", "fetch", "ls-remote", "pull", "push"]);
const WITH_VALUE = new Set(["-c", "-C", "--git-dir", "--work-tree", "--exec-path", "--namespace"]);

const isGit = (file) => /^git(\.exe)?$/i.test(path.basename(String(file)));
const real = (place) => {
  try {
    return fs.realpathSync(place);
  } catch {
    return path.resolve(place);
  }
};
const within = (place, root) => place === root || place.startsWith(root + path.sep);

// The subcommand, where it works, and the arguments without the headers that hold a key.
function understand(args, cwd) {
  const kept = [];
  const headers = [];
  let place = cwd || process.cwd();
  let at = 0;
  for (; at < args.length && args[at].startsWith("-"); at++) {
    const option = args[at];
    if (!WITH_VALUE.has(option)) {
      kept.push(option);
      continue;
    }
    const value = args[++at] ?? "";
    if (option === "-C") place = path.resolve(place, value);
    if (option === "-c" && /^http\..*extraheader=/i.test(value)) headers.push(value);
    else kept.push(option, value);
  }
  return { command: args[at] ?? "", place: real(place), args: [...kept, ...args.slice(at)], headers };
}

function withSettings(env, settings) {
  let count = Number(env.GIT_CONFIG_COUNT) || 0;
  for (const [key, value] of settings) {
    env[`GIT_CONFIG_KEY_${count}`] = key;
    env[`GIT_CONFIG_VALUE_${count}`] = value;
    count++;
  }
  env.GIT_CONFIG_COUNT = String(count);
}

// What to call instead: { args, env }, or null where git shall not be called.
function ruled(args, cwd, given) {
  const env = { ...given };
  const call = understand(args.map(String), cwd);
  const settings = call.headers.map((header) => {
    const at = header.indexOf("=");
    return [header.slice(0, at), header.slice(at + 1)];
  });
  const memory = rules.memories.some((root) => within(call.place, root));
  if (NETWORK.has(call.command) && (call.headers.length > 0 || memory) && !rules.network) return null;
  if (memory) {
    for (const name of Object.keys(env)) {
      if (/^GIT_(AUTHOR|COMMITTER)_/.test(name)) delete env[name];
    }
    env.GIT_CONFIG_GLOBAL = path.join(folder, "own.gitconfig");
    env.GIT_TEMPLATE_DIR = "";
    if (rules.local) env.GIT_CONFIG_NOSYSTEM = "1";
    call.args = [...rules.settings.flatMap((setting) => ["-c", setting]), ...call.args];
  }
  if (settings.length > 0) withSettings(env, settings);
  return { args: call.args, env };
}

const original = { spawnSync: childProcess.spawnSync, execFileSync: childProcess.execFileSync };
// Called in git's place: it fails as git does, with the reason.
const REFUSAL = [
  "-e",
  "console.error('fatal: memory is not kept in git here: no address for it was named " +
    "(LETTA_MEMFS_BASE_URL in Local(env=...))'); process.exit(128)",
];

function sync(name) {
  childProcess[name] = function (file, ...rest) {
    if (!isGit(file)) return original[name](file, ...rest);
    const args = Array.isArray(rest[0]) ? rest[0] : [];
    const options = (Array.isArray(rest[0]) ? rest[1] : rest[0]) ?? {};
    const call = ruled(args, options.cwd, options.env ?? process.env);
    if (call === null) return original[name](process.execPath, REFUSAL, options);
    return original[name](file, call.args, { ...options, env: call.env });
  };
}
sync("spawnSync");
sync("execFileSync");

// All asynchronous ways (spawn, execFile, and what promisify makes of it) meet here.
const start = childProcess.ChildProcess.prototype.spawn;
childProcess.ChildProcess.prototype.spawn = function (options) {
  if (isGit(options.file)) {
    const pairs = options.envPairs.map((pair) => {
      const at = pair.indexOf("=", 1);
      return [pair.slice(0, at), pair.slice(at + 1)];
    });
    const call = ruled(options.args.slice(1), options.cwd, Object.fromEntries(pairs));
    if (call === null) {
      options.file = process.execPath;
      options.args = [process.execPath, ...REFUSAL];
    } else {
      options.args = [options.args[0], ...call.args];
      options.envPairs = Object.entries(call.env).map(([key, value]) => `${key}=${value}`);
    }
  }
  return start.call(this, options);
};
syncBuiltinESMExports();
