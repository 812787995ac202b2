// Numbers as people read them.

/** Such as 950 B, 12.4 KiB. */
export function bytesText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** Such as 0.3s, 42s, 5m10s, 3h02m, 4d5h. */
export function durationText(seconds: number): string {
  const two = (value: number) => String(value).padStart(2, '0');
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d${Math.floor((whole % 86_400) / 3600)}h`;
}

/** Such as 41.2 %; a little is never shown as nothing. */
export function percentText(part: number, whole: number): string {
  if (whole === 0) return '-';
  const percent = (part / whole) * 100;
  if (percent > 0 && percent < 0.1) return '<0.1 %';
  return `${percent.toFixed(percent >= 10 ? 0 : 1)} %`;
}
const protocolNames: Readonly<Record<number, string>> = {
  1: 'ICMP',
  6: 'TCP',
  17: 'UDP',
  58: 'ICMPv6',
  132: 'SCTP',
};

/** The name of an IP protocol, or its number. */
export function protocolText(protocol: number): string {
  return protocolNames[protocol] ?? String(protocol);
}

/** The number of a protocol given by name or number; undefined when it is neither. */
export function protocolNumber(text: string): number | undefined {
  const named = Object.entries(protocolNames).find(([, name]) => name.toLowerCase() === text.toLowerCase());
  if (named !== undefined) return Number(named[0]);
  return /^\d{1,3}$/.test(text) && Number(text) < 256 ? Number(text) : undefined;
}

/** An address with a port: the brackets of IPv6 keep them apart. No port for protocols that have none. */
export function endText(address: string, port: number, protocol: number): string {
  if (protocol === 1 || protocol === 58) return address;
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Labels without what every pod has: `app=web,tier=front`. */
export function labelsText(labels: readonly string[]): string {
  const own = labels.filter(
    (label) => !label.startsWith('k8s:io.cilium.k8s.') && !label.startsWith('k8s:io.kubernetes.'),
  );
  return (own.length > 0 ? own : labels).map((label) => label.replace(/^k8s:/, '')).join(',');
}

/** The namespace in a pod's identity labels. */
export function namespaceOf(labels: readonly string[]): string | undefined {
  const prefix = 'k8s:io.kubernetes.pod.namespace=';
  return labels.find((label) => label.startsWith(prefix))?.slice(prefix.length);
}
