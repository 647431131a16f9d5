// Give recorded runs to the check of AG-UI's own client; one run of events a line.
import { verifyEvents } from "@ag-ui/client";
import { from, lastValueFrom, toArray } from "rxjs";
import { createInterface } from "node:readline";

let count = 0;
for await (const line of createInterface({ input: process.stdin })) {
  try {
    await lastValueFrom(from(JSON.parse(line)).pipe(verifyEvents(), toArray()));
    count += 1;
  } catch (error) {
    console.error(`${error.message}\n${line}`);
    process.exitCode = 1;
  }
}
console.log(count);
