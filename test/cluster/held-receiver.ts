// Takes events as Splunk's collector does, on a port of 127.0.0.1, and answers nobody until a line comes on its standard
// input; what it has taken it prints, an event a line. Ends with its input.
import { once } from 'node:events';
import { createServer } from 'node:http';

const port = Number(process.argv[2]);
let open = () => {};
const opened = new Promise<void>((resolve) => {
  open = resolve;
});

const server = createServer(async (request, response) => {
  let body = '';
  for await (const part of request.setEncoding('utf8')) body += part;
  await opened;
  process.stdout.write(`${body}\n`);
  response.end('{"text":"Success","code":0}');
});
server.listen(port, '127.0.0.1');
await once(server, 'listening');
process.stdout.write('listening\n');
process.stdin.once('data', open);
process.stdin.once('end', () => process.exit());
