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

static __always_inline __u32 flow_lifetime(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == PROTO_SCTP ? lifetime_tcp_open : lifetime_other_open;
}

static __always_inline int is_tcp_opening(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
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
