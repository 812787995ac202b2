/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Connections to frontends and the backend that each was given. */
#pragma once

#include "addr.h"
#include "clock.h"
#include "config.h"
#include "packet.h"
#include "service.h"

static __always_inline void flow_key_of(struct service_flow_key *k, const struct packet *p)
{
	addr_copy(k->src, p->src);
	addr_copy(k->dst, p->dst);
	k->sport = p->sport;
	k->dport = p->dport;
	k->protocol = p->protocol;
	k->pad[0] = k->pad[1] = k->pad[2] = 0;
}

static __always_inline int is_tcp_opening(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* By words, in registers: the stack is full where this is called. */
static __always_inline __u64 opening_who(const struct packet *p, __u32 service)
{
	return (__u64)p->sport << 32 | service;
}

static __always_inline volatile struct service_opening *opening_at(__u32 hash)
{
	__u32 index = hash & (SERVICE_OPENINGS - 1);

	return bpf_map_lookup_elem(&service_openings, &index);
}

static __always_inline void opening_note(const struct packet *p, __u32 service, __u32 hash, __u32 number, const struct backend *b)
{
	__u64 who = opening_who(p, service), backend = (__u64)b->generation << 32 | number;
	volatile struct service_opening *o = opening_at(hash);
	const __u64 *client = (const __u64 *)p->src;

	if (!o)
		return;
	o->client[0] = client[0] ^ backend;
	o->client[1] = client[1] ^ backend;
	o->who = who ^ backend;
	o->backend = backend;
}

/* The backend that the connection's SYN was given, while it is there. */
static __always_inline struct backend *opening_recall(const struct packet *p, __u32 service, __u32 hash, __u32 *number)
{
	volatile struct service_opening *o = opening_at(hash);
	const __u64 *client = (const __u64 *)p->src;
	__u64 who = opening_who(p, service), backend;
	struct backend *b;

	if (!o)
		return NULL;
	backend = o->backend;
	if ((o->who ^ backend) != who || (o->client[0] ^ backend) != client[0] || (o->client[1] ^ backend) != client[1])
		return NULL;
	*number = (__u32)backend;
	b = backend_lookup(*number);
	return b && (b->flags & BACKEND_USED) && b->generation == backend >> 32 ? b : NULL;
}

/* Picks the backend of a packet that no flow knows. A connection's second packet goes where its SYN went. */
static __always_inline struct backend *flow_pick(const struct packet *p, const struct service *svc, __u32 hash, __u32 *number, __u32 *cause)
{
	struct affinity_key who __attribute__((aligned(8)));
	struct backend *b;

	if (p->protocol == IPPROTO_TCP && !is_tcp_opening(p)) {
		b = opening_recall(p, svc->id, hash, number);
		if (b) {
			*cause = PICK_FLOW;
			return b;
		}
	}
	affinity_key_of_client(&who, p->src);
	b = service_pick(svc, hash, &who, number, cause);
	if (b && is_tcp_opening(p))
		opening_note(p, svc->id, hash, *number, b);
	return b;
}

/* Is a flow to be made? What only opens a connection is given its backend by the Maglev table, and the packet that follows
 * finds the same one: so whoever sends nothing but SYNs pushes nobody out of the table of flows. known: there is a row, by
 * which the next packet would go. */
static __always_inline int flow_is_kept(const struct packet *p, int known, __u32 cause)
{
	if (p->protocol != IPPROTO_TCP || known)
		return 1;
	return !(p->tcp_flags & TCP_RST) && !(is_tcp_opening(p) && cause == PICK_MAGLEV);
}

static __always_inline __u32 flow_lifetime(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == PROTO_SCTP ? lifetime_tcp_open : lifetime_other_open;
}

/* The backend that a flow was given, if it is still there. */
static __always_inline struct backend *flow_backend(const struct service_flow *f)
{
	struct backend *b = backend_lookup(f->backend);

	return b && (b->flags & BACKEND_USED) && b->generation == f->generation ? b : NULL;
}

/* A flow keeps its backend while that is there; a connection that begins needs one that takes new ones. Answers it, or
 * NULL when the flow is over. */
static __always_inline struct backend *flow_holds(const struct service_flow *f, const struct packet *p, __u32 now)
{
	struct backend *b = flow_backend(f);
	__u32 idle = now - f->last_seen;

	if (!b || (idle > f->lifetime && idle < (__u32)-1000))
		return NULL;
	/* What is over does not go on as another connection: that would end with the first one's lifetime. */
	return !is_tcp_opening(p) || ((b->flags & BACKEND_SERVING) && !(f->flags & FLOW_CLOSING)) ? b : NULL;
}
