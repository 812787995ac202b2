// The version of this build, from package.json.
import { readFileSync } from 'node:fs';

const file = new URL('../../../package.json', import.meta.url);

/** Such as "0.1.0". */
export const version: string = (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
