// The types of ICMP by the names that cilium.io/v2 gives them. Source: IANA, "ICMP Parameters" and "ICMPv6 Parameters".

const types4: Readonly<Record<string, number>> = {
  EchoReply: 0,
  DestinationUnreachable: 3,
  Redirect: 5,
  Echo: 8,
  EchoRequest: 8,
  RouterAdvertisement: 9,
  RouterSelection: 10,
  TimeExceeded: 11,
  ParameterProblem: 12,
  Timestamp: 13,
  TimestampReply: 14,
  Photuris: 40,
  ExtendedEchoRequest: 42,
  'ExtendedEcho Reply': 43,
  ExtendedEchoReply: 43,
};

const types6: Readonly<Record<string, number>> = {
  DestinationUnreachable: 1,
  PacketTooBig: 2,
  TimeExceeded: 3,
  ParameterProblem: 4,
  EchoRequest: 128,
  EchoReply: 129,
  MulticastListenerQuery: 130,
  MulticastListenerReport: 131,
  MulticastListenerDone: 132,
  RouterSolicitation: 133,
  RouterAdvertisement: 134,
  NeighborSolicitation: 135,
  NeighborAdvertisement: 136,
  RedirectMessage: 137,
  RouterRenumbering: 138,
  ICMPNodeInformationQuery: 139,
  ICMPNodeInformationResponse: 140,
  InverseNeighborDiscoverySolicitation: 141,
  InverseNeighborDiscoveryAdvertisement: 142,
  HomeAgentAddressDiscoveryRequest: 144,
  HomeAgentAddressDiscoveryReply: 145,
  MobilePrefixSolicitation: 146,
  MobilePrefixAdvertisement: 147,
  DuplicateAddressRequestCodeSuffix: 157,
  DuplicateAddressConfirmationCodeSuffix: 158,
  ExtendedEchoRequest: 160,
  ExtendedEchoReply: 161,
};

/** The number of a type given as number, as a text of one, or by name; undefined for what is none. */
export function icmpType(given: unknown, family: 'IPv4' | 'IPv6'): number | undefined {
  if (typeof given === 'number') return Number.isInteger(given) && given >= 0 && given <= 255 ? given : undefined;
  if (typeof given !== 'string') return undefined;
  if (/^\d{1,3}$/.test(given)) return Number(given) <= 255 ? Number(given) : undefined;
  const names = family === 'IPv4' ? types4 : types6;
  return Object.hasOwn(names, given) ? names[given] : undefined;
}
