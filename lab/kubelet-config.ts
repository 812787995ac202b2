// What kubelet is told on every node of the lab.
import { join } from 'node:path';
import { nameServerAddresses } from './addresses.ts';
import type { LabRecord, NodeSpec } from './state.ts';

/** A KubeletConfiguration (kubelet.config.k8s.io/v1beta1). `pki` is the folder of keys as the node sees it. */
export function kubeletConfig(record: LabRecord, node: NodeSpec, pki: string): object {
  return {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: join(pki, 'ca.crt') },
    },
    authorization: { mode: 'Webhook' },
    tlsCertFile: join(pki, `${node.name}.crt`),
    tlsPrivateKeyFile: join(pki, `${node.name}.key`),
    address: record.ipFamily === 'v4' ? '0.0.0.0' : '::',
    clusterDNS: nameServerAddresses(record.ipFamily),
    clusterDomain: 'cluster.local',
    resolvConf: '/etc/resolv.conf',
    containerRuntimeEndpoint: 'unix:///run/containerd/containerd.sock',
    cgroupDriver: 'cgroupfs',
    failCgroupV1: false,
    failSwapOn: false,
    oomScoreAdj: 0, // lowering it may be forbidden here
    makeIPTablesUtilChains: false, // no iptables needed, and Weir needs none
    serializeImagePulls: false,
    maxPods: 250,
    volumePluginDir: '/var/lib/kubelet/volume-plugins',
    // The disk is shared with the whole machine: images are never collected, and pods leave only when it is really full.
    imageGCHighThresholdPercent: 100,
    imageMinimumGCAge: '8760h',
    evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '1%', 'imagefs.available': '1%' },
  };
}
