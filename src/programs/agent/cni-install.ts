// Puts the plugin and its configuration where the container runtime looks. The configuration comes last, when the agent
// can serve: its presence is what makes a node ready.
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

const configName = '05-weir.conflist';

/** Copies the plugin where it differs. False when there is none to install. */
export function installPlugin(plugin: string, binDir: string): boolean {
  if (!existsSync(plugin)) return false;
  mkdirSync(binDir, { recursive: true });
  const to = join(binDir, 'weir-cni');
  if (existsSync(to) && readFileSync(to).equals(readFileSync(plugin))) return true;
  copyFileSync(plugin, `${to}.new`);
  chmodSync(`${to}.new`, 0o755);
  renameSync(`${to}.new`, to); // A plugin that is running keeps its file.
  return true;
}

/** Writes the network configuration. Other files that the runtime would prefer are named in the answer. */
export function installConfig(confDir: string, mtu: number): string[] {
  mkdirSync(confDir, { recursive: true });
  const config = {
    cniVersion: '1.1.0',
    name: 'weir',
    plugins: [{ type: 'weir-cni', mtu }],
  };
  const path = join(confDir, configName);
  writeFileSync(`${path}.tmp`, `${JSON.stringify(config, undefined, 2)}\n`);
  renameSync(`${path}.tmp`, path);
  return configsBefore(confDir);
}

/** The files in a folder of network configurations that the runtime prefers to ours; it takes the first by name. */
export function configsBefore(confDir: string): string[] {
  if (!existsSync(confDir)) return [];
  return readdirSync(confDir).filter((name) => /\.(conf|conflist|json)$/.test(name) && name < configName);
}
