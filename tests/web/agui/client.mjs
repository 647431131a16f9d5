// A front end of AG-UI's own: its client checks each event, and the order of all of them.
import { HttpAgent } from "@ag-ui/client";

const url = process.argv[2];
const agent = new HttpAgent({ url, threadId: "thread-1", headers: { "x-user": "ada" } });
const kinds = [];
const painted = [];
const tools = [{ name: "paint", description: "Paint the page.", parameters: { type: "object" } }];
let pending = [];
agent.subscribe({
  onEvent: ({ event }) => void kinds.push(event.type),
  onRunFinishedEvent: ({ pendingToolCallIds }) => void (pending = pendingToolCallIds ?? []),
});

function show(messages) {
  return messages.filter((m) => m.content).map((m) => [m.role, m.content]);
}

async function run(messages, input) {
  agent.messages.push(...messages);
  await agent.runAgent({ tools, ...input });
  // What the page is to do itself it does, and brings the result, as front ends do.
  while (pending.length > 0) {
    const calls = agent.messages.flatMap((m) => m.toolCalls ?? []);
    for (const id of pending) {
      const call = calls.find((c) => c.id === id).function;
      painted.push([call.name, JSON.parse(call.arguments)]);
      agent.messages.push({ id: `r-${id}`, role: "tool", toolCallId: id, content: "It is red." });
    }
    pending = [];
    await agent.runAgent({ tools });
  }
  return show(agent.messages);
}

const asked = await run([{ id: "m1", role: "user", content: "What is hello?" }], {});
const open = agent.pendingInterrupts.map((i) => [i.id, i.message]);
const resume = [
  { interruptId: agent.pendingInterrupts[0].id, status: "resolved", payload: { approved: true } },
];
const done = await run([], { resume });
const next = await run([{ id: "m2", role: "user", content: "Paint it red." }], {});
const page = new HttpAgent({ url, threadId: "thread-1", headers: { "x-user": "ada" } });
await page.runAgent();
const anew = show(page.messages);
const left = agent.pendingInterrupts.length;
console.log(JSON.stringify({ asked, open, done, next, painted, anew, left, kinds }));
