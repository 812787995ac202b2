/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services as the kernel and the agent share them. Addresses of 16 bytes are IPv6, IPv4 as ::ffff:a.b.c.d; ports are in
 * network byte order. */
#pragma once

#include <linux/types.h>

/* Slots are stored sixteen to an element: an array's elements are multiples of 8 bytes. */
#define SLOTS_PER_ELEMENT 16

/* For clients outside, a node translates behind an address of its pod block that no pod has: all its ports are free for
 * it, and nobody takes what comes from there for the node itself. */
#define NAT_PORT_MIN 1024
#define NAT_PORT_MAX 65535

enum service_scope {
	SCOPE_INSIDE = 0,  /* asked by a socket or pod of the cluster */
	SCOPE_OUTSIDE = 1, /* came in on a device */
};

/* services: a frontend. The unspecified address of a family (:: or ::ffff:0.0.0.0)
 * stands for every address of a node: node ports, host ports. */
struct service_key {
	__u8 addr[16];
	__be16 port;
	__u8 protocol;
	__u8 scope;
};

enum service_flags {
	SERVICE_MAGLEV = 1,	  /* the slots are a Maglev table, picked from by the connection's hash; else at random */
	SERVICE_AFFINITY = 2,	  /* a client keeps its backend */
	SERVICE_SOURCE_RANGES = 4, /* only clients in `source_ranges` */
	SERVICE_ONLY_LOCAL = 8,	  /* all slots are backends of this node: external traffic policy Local */
	SERVICE_NODE_PORT = 16,	  /* a port of nodes: on other nodes' addresses too, when asked from inside */
	SERVICE_DSR = 32,	  /* remote backends answer their clients themselves */
};

struct service {
	__u32 id;	  /* of the frontend; affinity, source ranges and flows speak of it */
	__u32 first_slot;
	__u32 slot_count; /* 0: nobody to serve */
	__u32 affinity_seconds;
	__u32 flags;
	__u32 owner; /* hash of the Service and port: whoever has the frontend next gets another id */
};

/* lb_slots: numbers of backends. */
struct service_slots {
	__u32 backend[SLOTS_PER_ELEMENT];
};

enum backend_flags {
	BACKEND_USED = 1,    /* the row is somebody */
	BACKEND_SERVING = 2, /* takes new connections */
	BACKEND_LOCAL = 4,   /* a pod of this node */
	BACKEND_NODE = 8,    /* this node's own address: a pod on the host's network */
};

/* backends: by number; a number stands for one address and port behind one service port, until it is given away anew. */
struct backend {
	__u8 addr[16];
	__be16 port;
	__u8 protocol;
	__u8 flags;
	__u32 generation; /* differs each time the number stands for somebody else */
};

/* backend_counts: connections that were handed to each backend, by number. It wraps. Sixteen to an element, as slots are. */
#define BACKENDS_PER_ELEMENT 16

struct backend_counts {
	__u32 connections[BACKENDS_PER_ELEMENT];
};

struct source_range_key {
	__u32 prefixlen; /* 32 for the frontend, and those of addr */
	__u32 service;
	__u8 addr[16];
};

/* service_affinity: who served this client last. */
struct affinity_key {
	__u8 client[16]; /* an address, or the cookie of a network namespace where a socket has none yet */
	__u32 service;
	__u32 from_socket;
};

struct affinity {
	__u32 backend;
	__u32 generation;
	__u32 last_used; /* seconds */
	__u32 pad;
};

/* service_flows: the way to a backend, by the packets that a client sends to a frontend.
 * service_replies: the way back, by the packets that a remote backend sends to this node. */
struct service_flow_key {
	__u8 src[16];
	__u8 dst[16];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 pad[3];
};

enum service_flow_flags {
	FLOW_SNAT = 1,
	FLOW_DSR = 2,
	FLOW_LOCAL = 4,	  /* the backend is a pod of this node: the connection table does the rest */
	FLOW_REPLIED = 8,
	FLOW_CLOSING = 16,
	FLOW_STACK = 32,  /* the backend is a pod on this node's own network */
};

/* Where packets leave, as the routes say. */
struct frame_way {
	__u32 ifindex; /* 0: not looked up yet */
	__u32 checked; /* ticks */
	__u16 mtu;
	__u8 macs[12]; /* destination and source of the frame */
	__u8 macs_known;
	__u8 pad;
};

/* The addresses are not in here: the backend's are in its row, which is looked at anyway, ours are in lb_config. */
struct service_flow {
	__u32 backend;
	__u32 generation;
	__u32 service;
	__u32 last_seen; /* ticks */
	__u32 lifetime;
	__be16 nat_port; /* FLOW_SNAT: ours */
	__u8 flags;
	__u8 pad;
	struct frame_way way;
};

struct service_reply {
	__u8 client[16];
	__u8 frontend[16];
	__be16 client_port;
	__be16 frontend_port;
	__u32 last_seen;
	__u32 lifetime;
	__u8 flags;
	__u8 pad[3];
	struct frame_way way;
};

/* service_openings: the backends that SYNs were given a moment ago, by the connection's hash; who comes later overwrites.
 * CPUs write at the same time and without a lock: the rest is mixed with the backend, so that half of one and half of another
 * is nobody's. */
#define SERVICE_OPENINGS 4096

struct service_opening {
	__u64 client[2]; /* its address */
	__u64 who;	 /* its port, and the frontend's id */
	__u64 backend;	 /* generation and number */
};

/* backend_ways: the next hop of backends, found by one connection and used by others for a moment. */
#define BACKEND_WAYS 4096

struct backend_way {
	__u32 backend;
	__u32 generation;
	struct frame_way way;
};

/* socket_peers: what a socket that talks to a backend believes to talk to. */
struct socket_peer_key {
	__u64 cookie;
	__u8 addr[16];
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
};

struct socket_peer {
	__u8 addr[16];
	__be16 port;
	__u16 pad;
	__u32 service;
	__u32 backend;
	__u32 generation;
	__u64 netns; /* cookie */
};

/* socket_services: the frontend that a connection of this node's sockets was made to, by its real ends. */
struct socket_service {
	__u32 service;
	__be16 port;
	__u16 pad;
	__u8 addr[16];
};

/* direct_backends: backends of this node that may be named by a packet which another node sent on for a client. */
struct direct_backend_key {
	__u8 addr[16];
	__u32 service;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

enum lb_config_flags {
	LB_DSR_TUNNEL = 1, /* direct return inside another packet, not with an option */
	LB_DENY_ICMP = 2,  /* policyDenyResponse: icmp */
};

/* lb_config: one row. */
struct lb_config {
	__u8 nat4[16]; /* behind which the node translates; zeros: none */
	__u8 nat6[16];
	__u8 node4[16]; /* by which other nodes know it */
	__u8 node6[16];
	__u32 flags;
	__u32 pad;
};
