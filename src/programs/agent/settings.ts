// What an agent can be told, with its defaults. Every limit of a node is here.

/** Settings of one node's agent. */
export interface AgentSettings {
  readonly nodeName: string;
  readonly kubeconfig?: string;
  readonly stateDir: string;
  readonly runDir: string;
  readonly bpffs: string;
  readonly objects: string;
  readonly cniBinDir: string;
  readonly cniConfDir: string;
  /** Where the CNI plugin to install is; nothing is installed when it is not there. */
  readonly cniPlugin: string;
  /** Devices on which packets for pods arrive; found by the node's addresses and default routes when empty. */
  readonly devices: readonly string[];
  readonly mtu?: number;
  readonly ignoredLabels?: readonly string[];
  /** Active connections are reported this often. */
  readonly reportIntervalMs: number;
  /** Drops reported a second, per device and reason. */
  readonly dropReportsPerSecond: number;
  /** Flows kept in memory. */
  readonly flowCapacity: number;
  /** What is exported where: a file that is read again when it changes. Without it nothing is exported. */
  readonly exportConfig?: string;
  /** Where metrics are served, such as `[::]:9965`; `off`: nowhere. */
  readonly metricsListen: string;
  /** Metrics of flows with their options. */
  readonly metrics: readonly string[];
  /** Rows of each of them. */
  readonly metricsSeries: number;
  /** What of a process's arguments flows carry: those that look like secrets replaced, all, or none. */
  readonly processArguments: 'redacted' | 'all' | 'off';
  /** Regular expressions: what they match in arguments, or their first group of it, is replaced too. */
  readonly redactArguments: readonly string[];
  /** Where flows are served on the network: used with a certificate, or with `flowInsecure`. */
  readonly flowListen: string;
  /** Of the flows' server, and the authority of those who may read them. */
  readonly flowTls: { readonly certFile?: string; readonly keyFile?: string; readonly caFile?: string };
  /** Flows in the clear for whoever reaches the port. */
  readonly flowInsecure: boolean;
  /** How packets from outside reach backends on other nodes: translated here both ways (snat), answered by the backend's
   * node (dsr), or dsr for TCP and snat for the rest (hybrid). */
  readonly lbMode: 'snat' | 'dsr' | 'hybrid';
  /** What a sender gets whose packet policy denies: nothing, or an ICMP message that makes its connect() fail at once. */
  readonly policyDenyResponse: 'none' | 'icmp';
  /** Whether policies that do not say so themselves, nor their namespace, are enforced or only reported. */
  readonly policyEnforcement: 'enforced' | 'staged';
  /** Whether policies for nodes judge the node's own traffic: not at all, only reporting what they deny, or in earnest. */
  readonly hostFirewall: 'off' | 'audit' | 'enforce';
  /** How a packet carries the frontend to the backend's node with dsr: an option of the IP header, or inside another packet. */
  readonly dsrDispatch: 'option' | 'tunnel';
  /** Where services are balanced before the kernel's stack sees a packet: in the driver of physical devices (auto), of all
   * devices (native), behind the driver (generic), or nowhere. */
  readonly xdp: 'auto' | 'native' | 'generic' | 'off';
  /** Whether the node's own processes may not bind ports that lead to services or pods. */
  readonly bindProtection: 'on' | 'off';
  /** Whether this node stands for load balancer addresses on the local network; `l2-all`: for external IPs, too. */
  readonly announce: 'none' | 'l2' | 'l2-all';
  /** Entries of the datapath's maps that differ from what they were compiled with. */
  readonly mapEntries: Readonly<Record<string, number>>;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** The names under which the sockets are in `runDir`. */
export const socketNames = { agent: 'agent.sock', flows: 'hubble.sock' } as const;

/** A second in the datapath's ticks of 2^20 ns. */
export function ticks(ms: number): number {
  return Math.round((ms * 1e6) / 2 ** 20);
}
