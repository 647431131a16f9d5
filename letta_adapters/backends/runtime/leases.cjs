// Who uses this runtime, and when it is no longer wanted. Every process that uses it holds one
// connection to the door opened here, its lease; the system closes it however that process ends.
// When the last one is gone and the time it asked for has passed, the runtime ends, in order.
//
// Lines of JSON (the other side is lease.py). In: {do: "lease", token, pid, birth, keep, insist} to
// take a lease, {do: "leave", keep} to give it back, {do: "retire", token} to end a runtime nobody
// uses, {do: "status", token}. Out: {granted} | {left, ending} | {retired, pids} | {status}, and
// unasked {event: ...}.
"use strict";
const crypto = require("node:crypto");
const fs = require("node:fs");
const net = require("node:net");

const HELLO_MS = 5000;
const LINE_CHARS = 4096;
const CHECK_MS = 1000;
const HANGING_MS = 30000;

const quietly = (action, otherwise) => {
  try {
    return action();
  } catch {
    return otherwise;
  }
};
const line = (value) => `${JSON.stringify(value)}\n`;

// What tells a process from a later one with the same id; null if it is gone (or not to be seen).
function birth(pid) {
  if (process.platform !== "linux") return quietly(() => process.kill(pid, 0), false) ? 1 : null;
  const stat = quietly(() => fs.readFileSync(`/proc/${pid}/stat`, "latin1"), "");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return stat && fields[0] !== "Z" ? fields[19] : null;
}

// Only a process that is the one it says can be watched: a container may number them otherwise.
function seen(pid, said) {
  const found = birth(pid);
  return process.platform !== "linux" || found === said ? found : null;
}

module.exports = class Leases {
  // `digest`: SHA-256 of the token, in hex. `record`: the file by which others find this
  // runtime. `end()`: end in order. `begun()`: it is used. `status()`: what to tell. `idle()`: does
  // no turn run?
  constructor({ digest, record, end, begun, status, idle }) {
    this.record = record;
    this.digest = Buffer.from(digest ?? "", "hex");
    this.end = end;
    this.begun = begun;
    this.describe = status;
    this.idle = idle;
    this.held = new Map(); // socket → {pid, keep, birth}
    this.used = false;
    this.ending = false;
    this.recycling = false;
    this.quietSince = null;
    this.timer = null;
    this.server = net.createServer((socket) => this.receive(socket));
    this.server.on("error", () => {});
    this.server.listen(0, "127.0.0.1", () => {
      process.stdout.write(`letta-adapters door: ${this.server.address().port}\n`);
    });
    this.server.unref();
    setInterval(() => this.look(), CHECK_MS).unref();
  }

  // The process that starts this runtime is watched by its pipe until it has a lease.
  starterGone() {
    if (!this.used) this.finish();
  }

  status(anew = false) {
    return { ...this.describe(anew), clients: this.held.size, recycling: this.recycling };
  }

  tell(event) {
    for (const socket of this.held.keys()) socket.write(line(event));
  }

  // From now on nobody new comes, and it ends with the last lease.
  recycle() {
    if (this.recycling) return;
    this.recycling = true;
    this.tell({ event: "recycle", status: this.status() });
    if (this.used && this.held.size === 0) this.finish();
  }

  finish() {
    if (this.ending) return;
    this.ending = true;
    this.server.close();
    for (const socket of this.held.keys()) socket.destroy();
    this.end();
  }

  receive(socket) {
    let text = "";
    const timer = setTimeout(() => this.held.has(socket) || socket.destroy(), HELLO_MS);
    socket.setEncoding("utf8");
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.on("close", () => {
      clearTimeout(timer);
      this.lose(socket);
    });
    socket.on("data", (data) => {
      text += data;
      for (let at; (at = text.indexOf("\n")) >= 0; text = text.slice(at + 1)) {
        this.take(socket, quietly(() => JSON.parse(text.slice(0, at)), null));
      }
      if (text.length > LINE_CHARS) socket.destroy();
    });
  }

  knows(token) {
    const given = crypto.createHash("sha256").update(String(token)).digest();
    return given.length === this.digest.length && crypto.timingSafeEqual(given, this.digest);
  }

  take(socket, asked) {
    if (this.held.has(socket) && asked?.do === "leave") this.leave(socket, Number(asked.keep) || 0);
    else if (!asked || !this.knows(asked.token)) socket.destroy();
    else if (asked.do === "lease") this.grant(socket, asked);
    else if (asked.do === "retire") this.retire(socket);
    else socket.end(line({ status: this.status(true) }));
  }

  grant(socket, { pid, birth: said, keep, insist }) {
    if (this.ending || (this.recycling && !insist)) {
      socket.end(line({ granted: false, recycling: this.recycling && !this.ending }));
      return;
    }
    if (!this.used) setImmediate(this.begun);
    this.used = true;
    clearTimeout(this.timer);
    this.held.set(socket, { pid, keep: Number(keep) || 0, birth: seen(pid, said) });
    socket.write(line({ granted: true, recycling: this.recycling, status: this.status() }));
  }

  retire(socket) {
    const pids = [...this.held.values()].map((lease) => lease.pid);
    socket.end(line({ retired: pids.length === 0, pids }));
    if (pids.length === 0) this.finish();
  }

  leave(socket, keep) {
    this.held.delete(socket);
    const ending = this.held.size === 0 && (keep <= 0 || this.recycling);
    socket.end(line({ left: true, ending }));
    this.rest(keep);
  }

  lose(socket) {
    const lease = this.held.get(socket);
    this.held.delete(socket);
    if (lease) this.rest(lease.keep);
  }

  rest(keep) {
    if (this.ending || this.held.size > 0) return;
    if (keep <= 0 || this.recycling) this.finish();
    else this.timer = setTimeout(() => this.finish(), keep * 1000);
  }

  // A process that is stopped, or hangs, gives nothing back: without a turn it is not waited for.
  press() {
    if (!this.idle()) this.quietSince = null;
    else if (this.quietSince === null) this.quietSince = Date.now();
    else if (Date.now() - this.quietSince > HANGING_MS) this.finish();
  }

  // A copy of a dead process's connection may be open elsewhere; a directory may be deleted.
  look() {
    for (const [socket, lease] of this.held) {
      if (lease.birth !== null && birth(lease.pid) !== lease.birth) socket.destroy();
    }
    if (this.recycling && this.held.size > 0) this.press();
    const deleted = !fs.existsSync(this.record);
    if (this.used && this.held.size === 0 && deleted) this.finish();
  }
};
