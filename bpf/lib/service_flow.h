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

/* A flow keeps its backend while that is there; a connection that begins needs one that takes new ones. */
static __always_inline int flow_holds(const struct service_flow *f, const struct packet *p, __u32 now)
{
	int opening = p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	struct backend *b = backend_lookup(f->backend);
	__u32 idle = now - f->last_seen;

	if (!b || !(b->flags & BACKEND_USED) || b->generation != f->generation)
		return 0;
	if (idle > f->lifetime && idle < (__u32)-1000)
		return 0;
	/* What is over does not go on as another connection: that would end with the first one's lifetime. */
	return !opening || ((b->flags & BACKEND_SERVING) && !(f->flags & FLOW_CLOSING));
}
