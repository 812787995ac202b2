// Runs command lines that come in as JSON, one per line, and answers each with what it printed and its exit code.
import { createInterface } from 'node:readline';
import { run } from '../main.ts';

const write = process.stdout.write.bind(process.stdout);
let out = '';
let err = '';
const keep = (add: (text: string) => void) =>
  ((text: string) => {
    add(text);
    return true;
  }) as typeof process.stdout.write;
process.stdout.write = keep((text) => (out += text));
process.stderr.write = keep((text) => (err += text));

for await (const line of createInterface({ input: process.stdin })) {
  const { env, args } = JSON.parse(line) as { env: Record<string, string>; args: string[] };
  Object.assign(process.env, env);
  out = '';
  err = '';
  process.exitCode = undefined;
  const code = await run(args);
  write(`${JSON.stringify({ code, out, err })}\n`);
}
process.exitCode = 0;
