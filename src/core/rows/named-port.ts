// A port that a pod gives a name, so that policies may speak of "http" and each pod answers with its own number.

/** The IP protocols that Kubernetes ports speak of. */
export type PortProtocol = 'TCP' | 'UDP' | 'SCTP';

/** A container port with a name. */
export interface NamedPort {
  readonly name: string;
  readonly protocol: PortProtocol;
  readonly port: number;
}

/** The numbers of the protocols in IP headers. */
export const protocolNumbers: Readonly<Record<PortProtocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };
