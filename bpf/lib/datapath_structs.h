/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel and the agent share: keys, values and events. User space's codecs are generated from these structs.
 * Addresses of 16 bytes are IPv6, IPv4 as ::ffff:a.b.c.d. Ports in keys and events are in network byte order. */
#pragma once

#include <linux/types.h>

#include "process_structs.h"

#define EPOCH_SLOTS 65536

enum direction {
	DIRECTION_INGRESS = 1,
	DIRECTION_EGRESS = 2,
};

enum host_firewall {
	HOST_FIREWALL_OFF = 0,
	HOST_FIREWALL_AUDIT = 1, /* what policies for nodes deny is let through and reported */
	HOST_FIREWALL_ENFORCE = 2,
};

/* ipcache: who an address is. The exact hash answers for pods and nodes, the prefix table for everything else. */
struct ipcache_key {
	__u8 addr[16];
};

struct ipcache_prefix_key {
	__u32 prefixlen; /* bits of addr: an IPv4 prefix counts 96 more */
	__u8 addr[16];
};

enum ipcache_flags {
	IPCACHE_THIS_NODE = 1,	/* an address of the node itself */
	IPCACHE_LOCAL_BLOCK = 2, /* prefix from which this node's pods get their addresses */
	IPCACHE_NAT = 4, /* of this node: what comes for it belongs to connections that the node translates */
};

struct ipcache_entry {
	__u32 class;	/* node-local number; policy knows subjects and peers by it */
	__u32 identity; /* cluster-wide label identity */
	__u32 ifindex;	/* host side of the pod's veth; 0 when the address is not a pod of this node */
	__u32 flags;
};

/* endpoints: one row per pod of this node, by the ifindex of the host side of its veth. */
struct endpoint {
	__u32 id;
	__u32 identity;
	__u8 ip4[16];
	__u8 ip6[16];
};

/* Policy in two steps: (subject, peer) -> ruleset, then (ruleset, protocol, port) -> verdict. */
struct policy_peer_key {
	__u32 subject;
	__u32 peer; /* class; 0 is the row for peers that have none of their own */
	__u32 direction;
};

struct policy_peer {
	__u32 ruleset;
};

struct policy_port_key {
	__u32 prefixlen; /* 32 any protocol, 40 any port, 41..56 a range of ports or one */
	__u32 ruleset;
	__u8 protocol;
	__u8 port_hi; /* most significant first, so that prefixes are ranges */
	__u8 port_lo;
	__u8 pad;
};

struct policy_port {
	__u32 cookie; /* the rules behind the verdict; the agent knows what it stands for */
	__u16 proxy_port;
	__u8 allow;
	__u8 staged_allow; /* what policies in dry run would say */
};

/* Conntrack keys hold the two ends in numerical order, so both directions find one entry with one lookup. */
struct ct4_key {
	__be32 lo_addr;
	__be32 hi_addr;
	__be16 lo_port;
	__be16 hi_port;
	__u8 protocol;
	__u8 leg; /* 0 direct */
	__u16 pad;
};

struct ct6_key {
	__u8 lo_addr[16];
	__u8 hi_addr[16];
	__be16 lo_port;
	__be16 hi_port;
	__u8 protocol;
	__u8 leg;
	__u16 pad;
};

enum ct_state {
	CT_OPENING = 1, /* only the originator was heard */
	CT_OPEN = 2,
	CT_CLOSING = 3, /* TCP: FIN from both ends */
	CT_CLOSED = 4,	/* TCP: reset; kept for what is still under way */
};

enum ct_flags {
	CT_ORIGINATOR_HI = 1, /* the originator is the key's hi end */
	CT_IPV6 = 2,
	CT_MIDSTREAM = 4, /* entry made from a TCP segment without SYN */
	CT_STAGED_EGRESS_DENY = 8,
	CT_STAGED_INGRESS_DENY = 16,
	CT_SERVICE = 32, /* made to a frontend: replies are given its address */
	CT_HAIRPIN = 64, /* a pod that reached itself through a service, and sees the gateway as its client */
	CT_MASQUERADED = 128, /* somebody else's, behind the node's address: not judged as the node's own */
};

/* In fin_acked: whose FIN or RST came first. */
#define CT_FINS_ACKED 3
#define CT_CLOSED_FIRST 4

enum out_kind {
	OUT_UNKNOWN = 0, /* resolved when the first packet goes that way */
	OUT_POD = 1,
	OUT_NEIGHBOUR = 2,
	OUT_THIS_NODE = 3,
	OUT_STACK = 4, /* the node's own with another machine: the stack has it anyway */
};

/* Index 0 of the pairs is the originator's direction, 1 the reply's. Times are ticks of 2^20 ns. The first 64 bytes are
 * what an established packet reads. */
struct ct_entry {
	__u32 last_seen;
	__u32 lifetime;
	__u32 epoch[2]; /* of originator and responder, read before the verdict */
	__u16 epoch_slot[2];
	__u32 in_ifindex[2]; /* where packets of this direction come from */
	__u32 out_ifindex[2];
	__u32 next_report;
	__u8 out_kind[2];
	__u8 tcp_flags[2]; /* seen so far, by direction */
	__u8 state;
	__u8 flags;
	__u8 verdict; /* enum drop_reason; 0: forward */
	__u8 denied_direction;
	__u64 bytes[2];
	__u64 packets[2];
	__u8 next_hop[2][16];
	__u64 created_ns;
	__u32 identity[2];
	__u32 cookie[2]; /* egress of the originator, ingress of the responder */
	__u32 fin_end[2]; /* sequence number that acknowledges this direction's FIN */
	__u8 fin_acked;	  /* a bit for each direction whose FIN the other end acknowledged; CT_CLOSED_FIRST << direction */
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 audited; /* bits of enum direction in which only the firewall's mode let it through */
	__be16 frontend_port;
	__u16 pad3;
	__u32 service; /* number of the frontend, however it was translated; 0: none */
	__u32 pad4;
	__u8 frontend[16]; /* CT_SERVICE */
};

/* hops: the way between two addresses as another connection found it a moment ago. */
#define HOPS 1024

struct hop {
	__u8 src[16];
	__u8 dst[16];
	__u8 next_hop[16];
	__u32 ifindex;
	__u32 epoch; /* of dst: routes that change raise it */
	__u32 found; /* ticks */
	__u32 pad;
};

struct fragment_key {
	__u8 src[16];
	__u8 dst[16];
	__u32 id;
	__u32 protocol;
};

struct fragment_ports {
	__be16 sport;
	__be16 dport;
	__u32 seen; /* tick */
};

enum event_type {
	EVENT_NEW = 1,	  /* a connection was allowed */
	EVENT_ACTIVE = 2, /* it goes on: counters so far */
	EVENT_END = 3,
	EVENT_DROP = 4,
	EVENT_DNS = 5, /* a message of DNS: struct dns_event */
	EVENT_ICMP_ERROR = 6, /* an ICMP error reached the sender of the packet that it speaks of */
};

enum end_cause {
	END_CLOSED = 1,	  /* FIN both ways and the last acknowledgement */
	END_RESET = 2,
	END_EXPIRED = 3,  /* idle for longer than its lifetime */
	END_REOPENED = 4, /* the same ports began a new connection */
};

enum closed_by {
	CLOSED_BY_NOBODY = 0,
	CLOSED_BY_ORIGINATOR = 1,
	CLOSED_BY_RESPONDER = 2,
};

enum event_flags {
	EVENT_IPV6 = 1,
	EVENT_REPLIED = 2, /* the responder was heard */
	EVENT_MIDSTREAM = 4,
	EVENT_STAGED_EGRESS_DENY = 8,
	EVENT_STAGED_INGRESS_DENY = 16,
	EVENT_REPLY_PACKET = 32, /* dropped packet travelled against the connection's direction */
	EVENT_AUDITED_INGRESS = 64, /* policies for nodes deny it, and their mode lets it through */
	EVENT_AUDITED_EGRESS = 128,
};

/* One record of the ring. Ends are the connection's: src is the originator. */
struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 bytes[2];
	__u64 packets[2];
	__u64 created_ns;
	__u8 src[16];
	__u8 dst[16];
	__u32 identity[2];
	__u32 cookie[2];
	__u32 ifindex; /* where the packet came in */
	__u32 suppressed; /* drops like this that were counted, but not reported, before it */
	__u32 service; /* number of the frontend that the connection was made to; 0: none */
	struct process_ref who[2]; /* of what runs on this node */
	__be16 sport;
	__be16 dport;
	__u8 type;
	__u8 protocol;
	__u8 reason;	/* EVENT_DROP: enum drop_reason; EVENT_END: enum end_cause */
	__u8 direction; /* EVENT_DROP by policy: whose policy; EVENT_END: who closed first, enum closed_by */
	__u8 flags;
	__u8 tcp_flags[2];
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 pad[3];
};

/* A message of DNS that went by, as far as it fits. */
#define DNS_PAYLOAD_MAX 512

struct dns_event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u8 src[16]; /* of the packet */
	__u8 dst[16];
	__be16 sport;
	__be16 dport;
	__u32 len; /* of what follows the transport header; it may be longer than what is here */
	__u8 type;
	__u8 protocol;
	__u8 pad[6];
	__u8 payload[DNS_PAYLOAD_MAX];
};

struct drop_count {
	__u64 packets;
	__u64 bytes;
};

/* Index of the counters map. */
enum counter {
	COUNTER_CT_CREATED = 0,
	COUNTER_CT_ENDED = 1,
	COUNTER_EVENTS = 2,
	COUNTER_EVENTS_LOST = 3, /* the ring was full */
	COUNTER_DROPS_UNREPORTED = 4, /* reports over the rate: drops, refused connections, ICMP errors */
	COUNTER_JUDGED = 5,
	COUNTER_REJUDGED = 6, /* an epoch had moved */
	COUNTER_FORWARDED = 7, /* packets sent on by the slow path */
	COUNTER_CT_FAILED = 8,
	COUNTER_BALANCED = 9, /* packets between clients outside and backends elsewhere */
	COUNTER_NAT_FAILED = 10, /* no port was free */
	COUNTER_DNS_LOST = 11, /* messages of DNS that found the ring full */
	COUNTER_MAX = 16,
};

struct drop_limit_key {
	__u32 ifindex;
	__u32 reason;
};

struct drop_limit {
	__u32 window; /* tick >> 10: about a second */
	__u32 reported;
	__u32 suppressed;
	__u32 pad;
};
