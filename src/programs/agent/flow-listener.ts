// Whether and how an agent serves its flows on the network. A wrong setting must not keep an agent from its node: it is
// said in the log and in `weir status`, and flows are served on the unix socket alone.
import { errorText } from '../../core/errors.ts';
import type { FlowListener } from '../../observe/flows/serve-flows.ts';
import { parseAddress } from '../../observe/rpc/rpc-address.ts';
import { type WatchedTls, watchTlsFiles } from '../../observe/rpc/tls-files.ts';
import type { AgentSettings } from './settings.ts';

/** What is to be served, or why nothing is. */
export interface FlowListenerPlan {
  readonly listener?: FlowListener;
  readonly files?: WatchedTls;
  /** Undefined where there is a listener. */
  readonly reason?: string;
  /** Whether the reason is a mistake and not a choice. */
  readonly mistaken: boolean;
}

/** Reads the settings and the files they name. */
export function planFlowListener({
  flowListen,
  flowTls,
  flowInsecure,
}: Pick<AgentSettings, 'flowListen' | 'flowTls' | 'flowInsecure'>): FlowListenerPlan {
  const named = [flowTls.certFile, flowTls.keyFile, flowTls.caFile].filter((each) => each !== undefined).length;
  try {
    parseAddress(flowListen);
    if (named === 0)
      return flowInsecure
        ? { listener: { address: flowListen }, mistaken: false }
        : { reason: 'there is no certificate (--flow-tls-cert-file)', mistaken: false };
    if (named < 3) throw new Error('certificate, key and the clients’ authority belong together');
    const files = watchTlsFiles(flowTls);
    return { listener: { address: flowListen, tls: { files, clients: 'required' } }, files, mistaken: false };
  } catch (error) {
    return { reason: errorText(error), mistaken: true };
  }
}

/** What `weir status` says of it. */
export interface FlowNetworkStatus {
  /** Where flows are served; undefined when they are not. */
  readonly address?: string;
  readonly tls: boolean;
  readonly reason?: string;
  /** When the certificate ends. */
  readonly certificateEnds?: string;
  /** Why the certificate's files as they are now cannot be used. */
  readonly problem?: string;
}

/** Puts the plan and what became of it into words. */
export function flowNetworkStatus(
  plan: FlowListenerPlan,
  address: string | undefined,
  listenError: string | undefined,
): FlowNetworkStatus {
  const { files } = plan;
  return {
    address,
    tls: files !== undefined,
    reason: address === undefined ? (listenError ?? plan.reason) : undefined,
    certificateEnds: files?.validToMs === undefined ? undefined : new Date(files.validToMs).toISOString(),
    problem: files?.problem,
  };
}
