// What kube-proxy calls its own. Only these names are ever touched: kubelet and other network plugins have chains that
// begin with KUBE-, too.

const fixedChains = new Set([
  'KUBE-SERVICES',
  'KUBE-EXTERNAL-SERVICES',
  'KUBE-NODEPORTS',
  'KUBE-NODE-PORT',
  'KUBE-POSTROUTING',
  'KUBE-FORWARD',
  'KUBE-MARK-MASQ',
  'KUBE-PROXY-CANARY',
  'KUBE-PROXY-FIREWALL',
  'KUBE-SOURCE-RANGES-FIREWALL',
  'KUBE-LOAD-BALANCER',
  'KUBE-IPVS-FILTER',
  'KUBE-IPVS-OUT-FILTER',
]);
/** One or several for each service and endpoint, named after a hash. */
const hashedChain = /^KUBE-(SVC|SVL|SEP|FW|EXT|XLB)-[A-Z2-7]{16}$/;
const set =
  /^KUBE-(6-)?(LOOP-BACK|CLUSTER-IP|LOAD-BALANCER(-LOCAL|-FW|-SOURCE-IP|-SOURCE-CIDR)?|EXTERNAL-IP(-LOCAL)?|NODE-PORT(-LOCAL)?-(TCP|UDP|SCTP-HASH)|HEALTH-CHECK-NODE-PORT|IPVS-IPS)$/;

/** Whether a chain of iptables is kube-proxy's. */
export function isProxyChain(name: string): boolean {
  return fixedChains.has(name) || hashedChain.test(name);
}

/** Whether an ipset is kube-proxy's. */
export function isProxySet(name: string): boolean {
  return set.test(name);
}

/** The table of nftables that kube-proxy has in each family. */
export const proxyTable = 'kube-proxy';

/** The device on which kube-proxy puts the addresses of services in its mode ipvs. */
export const proxyDevice = 'kube-ipvs0';
