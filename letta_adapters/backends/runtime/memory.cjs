// How full the heap is, and when that is too full. The runtime keeps something of every conversation
// it has seen (0.13 MB each, letta 0.34.12) and has no command to let go of it, so it would end, in
// the middle of turns, when its heap is full.
//
// What is used says little, because garbage counts until it is collected. Near the marks a full
// collection is made, which takes a twentieth of the time at most. Both marks are shares of what the
// runtime had free when it began to serve.
"use strict";
const v8 = require("node:v8");
const vm = require("node:vm");

const CHECK_MS = 500;
const MB = 1 << 20;

module.exports = class Memory {
  // `share`: of the heap, for conversations. `near()`, `full()`: called once each.
  constructor({ share, near, full }) {
    this.share = share;
    this.near = near;
    this.full = full;
    // What V8 calls its limit has room for garbage besides, which does not help.
    const option = process.execArgv.find((text) => text.startsWith("--max-old-space-size="));
    const given = Number(option?.split("=")[1]) * MB;
    this.limit = given || v8.getHeapStatistics().heap_size_limit;
    this.base = null;
    this.live = 0;
    this.next = 0;
    v8.setFlagsFromString("--expose-gc");
    this.collect = vm.runInNewContext("gc");
  }

  // It serves: from now on it fills.
  begin() {
    if (this.base !== null) return;
    this.base = this.measure();
    setInterval(() => this.look(), CHECK_MS).unref();
  }

  measure() {
    const began = Date.now();
    this.collect();
    this.next = Date.now() + 20 * (Date.now() - began);
    return (this.live = v8.getHeapStatistics().used_heap_size);
  }

  mark(share) {
    return this.base + share * Math.max(0, this.limit - this.base);
  }

  look() {
    const warn = this.mark(this.share * 0.8);
    if (v8.getHeapStatistics().used_heap_size < warn || Date.now() < this.next) return;
    this.measure();
    if (this.live >= warn) this.once("near");
    if (this.live >= this.mark(this.share)) this.once("full");
  }

  once(what) {
    const tell = this[what];
    this[what] = () => {};
    tell();
  }

  // `anew`: somebody asks, who is told what is so now.
  status(anew) {
    if (anew && this.base !== null && Date.now() >= this.next) this.measure();
    const used = v8.getHeapStatistics().used_heap_size;
    return {
      heap_mb: (this.live || used) / MB,
      heap_used_mb: used / MB,
      heap_limit_mb: this.limit / MB,
      recycle_at_mb: this.mark(this.share) / MB,
      rss_mb: process.memoryUsage.rss() / MB,
    };
  }
};
