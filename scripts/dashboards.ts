// The dashboards for Grafana: what each shows, by the metrics of agents, operator and relay.

/** A query and the name of its lines. */
export type Query = readonly [expression: string, legend: string];

/** A panel; panels fill rows from left to right. */
export interface Panel {
  readonly title: string;
  readonly kind?: 'timeseries' | 'stat' | 'table';
  readonly unit?: string;
  readonly width?: number;
  readonly queries: readonly Query[];
}

/** A dashboard. */
export interface Dashboard {
  /** Of the file, and of the page's address. */
  readonly name: string;
  readonly title: string;
  readonly panels: readonly Panel[];
}

const range = '[$__rate_interval]';
const rate = (metric: string, by = '') => `sum${by === '' ? '' : ` by (${by})`} (rate(${metric}${range}))`;
const quantile = (q: number, metric: string) =>
  `histogram_quantile(${q}, sum by (le) (rate(${metric}_bucket${range})))`;
const quantiles = (metric: string): Query[] => [0.5, 0.95, 0.99].map((q) => [quantile(q, metric), `p${q * 100}`]);

/** All of them. */
export const dashboards: readonly Dashboard[] = [
  {
    name: 'overview',
    title: 'Weir: the cluster',
    panels: [
      { title: 'Nodes with an agent', kind: 'stat', queries: [['count(weir_build_info)', '']] },
      { title: 'Pods', kind: 'stat', queries: [['sum(weir_endpoints)', '']] },
      { title: 'Policies', kind: 'stat', queries: [['max(weir_policies)', '']] },
      { title: 'Identities', kind: 'stat', queries: [['max(weir_identities)', '']] },
      {
        title: 'Versions',
        kind: 'table',
        width: 24,
        queries: [['count by (version) (weir_build_info)', '{{version}}']],
      },
      { title: 'Flows a second', queries: [[rate('hubble_flows_processed_total', 'verdict'), '{{verdict}}']] },
      { title: 'Dropped packets a second', queries: [[rate('weir_dropped_packets_total', 'reason'), '{{reason}}']] },
      {
        title: 'Fullest map of any node',
        unit: 'percentunit',
        queries: [['max by (map) (weir_map_pressure)', '{{map}}']],
      },
      {
        title: 'Watches that are broken',
        queries: [['sum by (resource) (1 - weir_api_watch_connected)', '{{resource}}']],
      },
    ],
  },
  {
    name: 'flows',
    title: 'Weir: flows and drops',
    panels: [
      {
        title: 'Flows a second, by verdict',
        queries: [[rate('hubble_flows_processed_total', 'verdict'), '{{verdict}}']],
      },
      {
        title: 'Flows a second, by protocol',
        queries: [[rate('hubble_flows_processed_total', 'protocol'), '{{protocol}}']],
      },
      { title: 'Reported drops a second', queries: [[rate('hubble_drop_total', 'reason'), '{{reason}}']] },
      {
        title: 'All dropped packets a second',
        queries: [[rate('weir_dropped_packets_total', 'reason'), '{{reason}}']],
      },
      {
        title: 'Dropped bytes a second',
        unit: 'Bps',
        queries: [[rate('weir_dropped_bytes_total', 'reason'), '{{reason}}']],
      },
      { title: 'ICMP a second', queries: [[rate('hubble_icmp_total', 'type'), '{{type}}']] },
      { title: 'Lost events a second', queries: [[rate('hubble_lost_events_total', 'source'), '{{source}}']] },
      {
        title: 'Events that wait in the kernel',
        unit: 'bytes',
        queries: [['weir_flow_backlog_bytes', '{{instance}}']],
      },
    ],
  },
  {
    name: 'policy',
    title: 'Weir: policy verdicts',
    panels: [
      { title: 'Verdicts a second', queries: [[rate('hubble_policy_verdicts_total', 'action'), '{{action}}']] },
      {
        title: 'By direction',
        queries: [[rate('hubble_policy_verdicts_total', 'direction, action'), '{{direction}} {{action}}']],
      },
      { title: 'By what matched', queries: [[rate('hubble_policy_verdicts_total', 'match'), '{{match}}']] },
      {
        title: 'Packets denied a second',
        queries: [['sum (rate(weir_dropped_packets_total{reason="POLICY_DENIED"}[$__rate_interval]))', 'denied']],
      },
      { title: 'Policies that nodes know', queries: [['weir_policies', '{{instance}}']] },
      {
        title: 'Rows that are not in force yet',
        queries: [['sum by (reconciler, state) (weir_reconciler_rows{state!="done"})', '{{reconciler}} {{state}}']],
      },
    ],
  },
  {
    name: 'tcp-dns',
    title: 'Weir: health of TCP and DNS',
    panels: [
      { title: 'Handshake', unit: 's', queries: quantiles('weir_tcp_handshake_seconds') },
      { title: 'Round trip', unit: 's', queries: quantiles('weir_tcp_rtt_seconds') },
      { title: 'Segments sent again a second', queries: [[rate('weir_tcp_retransmits_total'), 'retransmits']] },
      {
        title: 'Connections ended a second',
        queries: [[rate('weir_tcp_connections_ended_total', 'cause'), '{{cause}}']],
      },
      { title: 'TCP flags a second', queries: [[rate('hubble_tcp_flags_total', 'flag'), '{{flag}}']] },
      { title: 'DNS latency', unit: 's', queries: quantiles('weir_dns_latency_seconds') },
      { title: 'Questions a second', queries: [[rate('hubble_dns_queries_total', 'qtypes'), '{{qtypes}}']] },
      { title: 'Answers a second', queries: [[rate('hubble_dns_responses_total', 'rcode'), '{{rcode}}']] },
    ],
  },
  {
    name: 'agent',
    title: 'Weir: health of agents',
    panels: [
      {
        title: 'Processor',
        unit: 'percentunit',
        queries: [[`rate(weir_agent_process_cpu_seconds_total${range})`, '{{instance}}']],
      },
      { title: 'Memory', unit: 'bytes', queries: [['weir_agent_process_resident_memory_bytes', '{{instance}}']] },
      {
        title: 'Event loop, p99',
        unit: 's',
        queries: [['weir_agent_nodejs_eventloop_lag_p99_seconds', '{{instance}}']],
      },
      {
        title: 'The container runtime waited',
        unit: 's',
        queries: [
          [`histogram_quantile(0.99, sum by (le, command) (rate(weir_cni_seconds_bucket${range})))`, '{{command}} p99'],
        ],
      },
      { title: 'Map pressure', unit: 'percentunit', queries: [['max by (map) (weir_map_pressure)', '{{map}}']] },
      { title: 'Map rows', queries: [['sum by (map) (weir_map_entries)', '{{map}}']] },
      { title: 'Map rows that cannot be written', queries: [['sum by (map) (weir_map_rows_failing)', '{{map}}']] },
      {
        title: 'Addresses used',
        unit: 'percentunit',
        queries: [
          [
            'sum by (cidr) (weir_ipam_addresses{state="used"}) / sum by (cidr) (weir_ipam_addresses{state="capacity"})',
            '{{cidr}}',
          ],
        ],
      },
      { title: 'Processes', queries: [['weir_processes', '{{instance}}']] },
      { title: 'Events of processes a second', queries: [[rate('weir_process_events_total', 'event'), '{{event}}']] },
      { title: 'Datapath events a second', queries: [[rate('weir_datapath_events_total', 'event'), '{{event}}']] },
      {
        title: 'Series refused a second',
        queries: [[rate('weir_metrics_series_refused_total', 'metric'), '{{metric}}']],
      },
    ],
  },
  {
    name: 'operator',
    title: 'Weir: the operator',
    panels: [
      { title: 'Operators that lead', kind: 'stat', queries: [['sum(weir_operator_leading)', '']] },
      {
        title: 'Identity numbers',
        kind: 'stat',
        queries: [['max by (state) (weir_operator_identities)', '{{state}}']],
      },
      { title: 'Pools', kind: 'stat', queries: [['max(weir_operator_pools)', '']] },
      {
        title: 'Services without addresses',
        kind: 'stat',
        queries: [['max(weir_operator_load_balancer_waiting)', '']],
      },
      {
        title: 'Blocks of pod addresses',
        queries: [['max by (pool, state) (weir_operator_blocks)', '{{pool}} {{state}}']],
      },
      {
        title: 'Load balancer addresses and pools',
        queries: [
          ['max(weir_operator_load_balancer_addresses)', 'addresses'],
          ['max(weir_operator_load_balancer_pools)', 'pools'],
        ],
      },
      {
        title: 'Statuses of policies written a second',
        queries: [[rate('weir_operator_policy_statuses_written_total'), 'statuses']],
      },
      {
        title: 'Identities created a second',
        queries: [[rate('weir_operator_identities_created_total'), 'identities']],
      },
      { title: 'Watches', queries: [['max by (resource) (weir_operator_watch_connected)', '{{resource}}']] },
      { title: 'Memory', unit: 'bytes', queries: [['weir_operator_process_resident_memory_bytes', '{{instance}}']] },
    ],
  },
  {
    name: 'relay',
    title: 'Weir: the relay',
    panels: [
      { title: 'Nodes', queries: [['sum by (state) (weir_relay_nodes)', '{{state}}']] },
      {
        title: 'Clients and calls',
        queries: [
          ['sum(weir_relay_clients)', 'clients'],
          ['sum(weir_relay_calls)', 'calls'],
        ],
      },
      {
        title: 'Flows a second',
        queries: [
          [rate('weir_relay_flows_received_total'), 'received'],
          [rate('weir_relay_flows_sent_total'), 'sent'],
          [rate('weir_relay_flows_late_total'), 'late'],
        ],
      },
      { title: 'Lost events a second', queries: [[rate('weir_relay_lost_events_total'), 'lost']] },
      {
        title: 'Events of processes a second',
        queries: [[rate('weir_relay_process_events_total', 'event'), '{{event}}']],
      },
      { title: 'Refused a second', queries: [[rate('weir_relay_refused_total', 'what'), '{{what}}']] },
      { title: 'Memory', unit: 'bytes', queries: [['weir_relay_process_resident_memory_bytes', '{{instance}}']] },
    ],
  },
];

/** The dashboard as Grafana reads it. The data source is asked for when it is opened. */
export function dashboardJson({ name, title, panels }: Dashboard): object {
  const datasource = { type: 'prometheus', uid: `\${datasource}` };
  let x = 0;
  let y = 0;
  let rowHeight = 0;
  const placed = panels.map((panel, id) => {
    const { kind = 'timeseries', unit = 'short', queries } = panel;
    const width = panel.width ?? (kind === 'stat' ? 6 : 12);
    const height = kind === 'stat' ? 4 : 8;
    if (x + width > 24) {
      x = 0;
      y += rowHeight;
      rowHeight = 0;
    }
    const gridPos = { x, y, w: width, h: height };
    x += width;
    rowHeight = Math.max(rowHeight, height);
    return {
      id: id + 1,
      type: kind,
      title: panel.title,
      datasource,
      gridPos,
      fieldConfig: { defaults: { unit, min: kind === 'timeseries' ? 0 : undefined }, overrides: [] },
      options: kind === 'timeseries' ? { legend: { displayMode: 'list', placement: 'bottom' } } : {},
      targets: queries.map(([expr, legendFormat], i) => ({
        refId: String.fromCharCode(65 + i),
        datasource,
        expr,
        legendFormat: legendFormat === '' ? '__auto' : legendFormat,
        ...(kind === 'timeseries' ? {} : { instant: true }),
        ...(kind === 'table' ? { format: 'table' } : {}),
      })),
    };
  });
  return {
    uid: `weir-${name}`,
    title,
    tags: ['weir'],
    schemaVersion: 39,
    editable: true,
    refresh: '30s',
    time: { from: 'now-1h', to: 'now' },
    templating: {
      list: [{ name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus', refresh: 1 }],
    },
    panels: placed,
  };
}
