// The row types of all tables, in one place to import from. The pillars meet in these and nowhere else.
export * from './rows/address.ts';
export * from './rows/endpoint.ts';
export * from './rows/frontend.ts';
export * from './rows/identity.ts';
export * from './rows/ipcache.ts';
export * from './rows/named-port.ts';
export * from './rows/namespace.ts';
export * from './rows/network-policy.ts';
export * from './rows/node.ts';
export * from './rows/pod.ts';
export * from './rows/policy-class.ts';
export * from './rows/policy-cookie.ts';
export * from './rows/policy-peer.ts';
export * from './rows/policy-port.ts';
export * from './rows/prefix.ts';
export * from './rows/remote-endpoint.ts';
export * from './rows/service.ts';
