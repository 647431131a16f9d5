// Loaded into the runtime (node --require) by letta_adapters. Ends it when nobody uses it any more:
// who does is known by leases (leases.cjs), and until the first one by stdin, a pipe that only the
// process which starts it holds. The order is the one that never runs a message twice: drop the
// clients (which cancels their turns), wait until no accepted input is open, then SIGTERM. What is
// still open when the process exits is marked as done, so that the next start does not run it.
"use strict";
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const crypto = require("node:crypto");
const diagnostics = require("node:diagnostics_channel");
const compat = require("./_compat.cjs");
const Leases = require("./leases.cjs");
const Memory = require("./memory.cjs");

const id = process.env.LETTA_ADAPTERS_RUNTIME_ID;
const grace = Number(process.env.LETTA_ADAPTERS_GRACE_MS) || 3000;
delete process.env.LETTA_ADAPTERS_GRACE_MS;
const startedAt = Date.now();
const letta = path.join(os.homedir(), compat.LETTA);
const stateDir = process.env[compat.STATE_DIR] || path.join(letta, compat.STATE);
const parent = process.ppid;
const meet = process.cwd();
const LOG_BYTES = 1 << 20;
const sockets = new Set();
let closing = false;

const pause = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const quietly = (action, otherwise) => {
  try {
    return action();
  } catch {
    return otherwise;
  }
};

// -- the runtime's record of accepted inputs (the same rules are in ledger.py) ---------------

function ledgers() {
  const root = path.join(letta, compat.LEDGERS);
  const files = quietly(() => fs.readdirSync(root), []);
  return files.map((name) => path.join(root, name, compat.LEDGER));
}

function isOurs(entry) {
  const input = entry[compat.QUEUED];
  if (!input || entry[compat.ACCEPTED_AT] < startedAt) return false;
  const connection = String(input.incoming?.connectionId ?? compat.CONNECTIONS);
  if (!connection.startsWith(compat.CONNECTIONS)) return false;
  const agent = input.scope?.agentId;
  if (!agent || process.env.LETTA_BASE_URL) return true;
  const name = Buffer.from(agent).toString("base64url");
  return fs.existsSync(path.join(stateDir, compat.AGENTS, `${name}.json`));
}

const read = (file) => quietly(() => JSON.parse(fs.readFileSync(file, "utf8")), null);
const openIn = (store) => Object.values(store?.[compat.ENTRIES] ?? {}).filter(isOurs);
const anyOpen = () => ledgers().some((file) => openIn(read(file)).length > 0);

function locked(file, action) {
  const lock = `${file}${compat.LOCK}`;
  const token = crypto.randomUUID();
  const candidate = `${lock}.${compat.CANDIDATE}-${process.pid}-${token}`;
  const name = `${process.pid}-${token}.json`;
  const owner = JSON.stringify({ token, pid: process.pid, processStart: null });
  fs.mkdirSync(candidate, { mode: 0o700 });
  fs.writeFileSync(path.join(candidate, name), owner, { mode: 0o600 });
  for (let left = 40; ; left--) {
    if (quietly(() => (fs.renameSync(candidate, lock), true), false)) break;
    if (left === 0) {
      fs.rmSync(candidate, { recursive: true, force: true });
      return;
    }
    pause(25);
  }
  try {
    action();
  } finally {
    fs.rmSync(lock, { recursive: true, force: true });
  }
}

function neutralise(file) {
  const store = read(file);
  const open = openIn(store);
  if (open.length === 0) return;
  for (const entry of open) {
    delete entry[compat.QUEUED];
    Object.assign(entry, compat.COMPLETED);
  }
  const temporary = `${file}.${process.pid}.${crypto.randomUUID()}.tmp`;
  fs.writeFileSync(temporary, JSON.stringify(store), { mode: 0o600, flag: "wx" });
  fs.renameSync(temporary, file);
}

// -- what the runtime has started (Linux: found by the mark in their environment) ----------------

function descendants() {
  if (process.platform !== "linux" || !id) return [];
  const mark = `LETTA_ADAPTERS_RUNTIME_ID=${id}`;
  return quietly(() => fs.readdirSync("/proc"), [])
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) =>
      quietly(() => fs.readFileSync(`/proc/${pid}/environ`, "latin1"), "")
        .split("\0")
        .includes(mark),
    )
    .map(Number);
}

function endDescendants() {
  for (const pid of descendants()) quietly(() => process.kill(pid, "SIGTERM"));
  for (let left = 12; left > 0 && descendants().length > 0; left--) pause(25);
  for (const pid of descendants()) quietly(() => process.kill(pid, "SIGKILL"));
}

// -- the end -------------------------------------------------------------------------------------

function finish() {
  // emit, not kill: on Windows a signal sent to oneself ends the process at once.
  if (process.listenerCount("SIGTERM") > 0) process.emit("SIGTERM", "SIGTERM");
  else process.exit(0);
  setTimeout(() => process.exit(0), 2000).unref();
}

function close() {
  if (closing) return;
  closing = true;
  for (const socket of sockets) socket.destroy();
  const deadline = Date.now() + grace;
  const look = () => (Date.now() < deadline && anyOpen() ? setTimeout(look, 50) : finish());
  setTimeout(look, 100); // the lost connections are noticed first
}

const digest = process.argv[process.argv.indexOf("--ws-token-sha256") + 1];
const record = path.join(meet, "server.json");
const memory = new Memory({
  share: Number(process.env.LETTA_ADAPTERS_RECYCLE_AT) || 0.75,
  near: () => leases.tell({ event: "memory", status: leases.status() }),
  full: () => leases.recycle(),
});
delete process.env.LETTA_ADAPTERS_RECYCLE_AT;
const leases = new Leases({
  digest,
  record,
  end: close,
  begun: () => memory.begin(),
  status: (anew) => ({ started_at: startedAt, ...memory.status(anew) }),
  idle: () => !anyOpen(),
});

// The bundle's entry runs once; what it spawns with node does not load this file.
diagnostics.subscribe("net.server.socket", ({ socket }) => {
  if (socket.server === leases.server) return;
  if (closing) socket.destroy();
  sockets.add(socket);
  socket.once("close", () => sockets.delete(socket));
});

// The record by which others find this runtime goes when it has ended; it stays after a crash.
function withdraw() {
  if (read(record)?.runtime_id !== id) return;
  for (const file of [record, path.join(meet, "server.log")]) quietly(() => fs.unlinkSync(file));
}
process.on("exit", () => {
  for (const file of ledgers()) {
    if (openIn(read(file)).length > 0) quietly(() => locked(file, () => neutralise(file)));
  }
  quietly(endDescendants);
  withdraw();
});

// Our output goes to a file, which must not grow for ever. (On a full disk it is lost.)
process.stdout.on("error", () => {});
process.stderr.on("error", () => {});
setInterval(() => {
  if (quietly(() => fs.fstatSync(1).size, 0) > LOG_BYTES) quietly(() => fs.ftruncateSync(1, 0));
}, 5000).unref();

// The runtime's own watcher exits at once when its parent is gone, in mid-turn: it sees no change.
Object.defineProperty(process, "ppid", { get: () => parent, configurable: true });
for (const event of ["end", "close", "error"]) process.stdin.on(event, () => leases.starterGone());
process.stdin.resume();
