/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services per packet, for what the socket hooks did not see: packets of pods to any backend, packets from devices to the
 * pods of this node. What goes to backends elsewhere is left to the balancer. */
#pragma once

#include "clock.h"
#include "config.h"
#include "datapath_maps.h"
#include "nat.h"
#include "sender.h"
#include "service.h"
#include "service_flow.h"

#define IDENTITY_UNMANAGED 3
#define IDENTITY_REMOTE_NODE 6
/* Identities from here on are pods of the cluster: never frontends. */
#define IDENTITY_FIRST_POD 256

/* A pod of the cluster, also one that is not known yet. */
static __always_inline int is_pod(__u32 identity)
{
	return identity >= IDENTITY_FIRST_POD || identity == IDENTITY_UNMANAGED;
}

enum translation {
	NOT_TRANSLATED = 0, /* no service */
	TRANSLATED = 1,	    /* the packet goes to a backend now */
	FOR_BALANCER = 2,   /* the backend is elsewhere */
};

/* A pod that reaches itself through a service sees its gateway as the client: with its own address its stack would not
 * take the packet. */
static __always_inline void gateway_of(__u8 *addr, int ipv6)
{
	__u32 *w = (__u32 *)addr;

	w[0] = ipv6 ? bpf_htonl(0xfe800000) : 0;
	w[1] = 0;
	w[2] = ipv6 ? 0 : bpf_htonl(0xffff);
	w[3] = ipv6 ? bpf_htonl(1) : bpf_htonl(0xa9fe0101);
}

static __always_inline struct service *frontend_of_packet(const struct packet *p, const struct ipcache_entry *to, int hook)
{
	struct service *s = service_lookup(p->dst, p->dport, p->protocol, hook == HOOK_DEVICE ? SCOPE_OUTSIDE : SCOPE_INSIDE);

	if (s || hook == HOOK_DEVICE)
		return s;
	if (!(to->flags & IPCACHE_THIS_NODE) && to->identity != IDENTITY_REMOTE_NODE)
		return NULL;
	s = service_lookup_node_port(p->dst, p->dport, p->protocol, SCOPE_INSIDE);
	if (!s || (to->flags & IPCACHE_THIS_NODE))
		return s;
	return (s->flags & SERVICE_NODE_PORT) && !(s->flags & SERVICE_ONLY_LOCAL) ? s : NULL;
}

/* Picks the backend of a packet that no flow of here knows, and makes the flow in s->flow, and in the table where it is kept.
 * What is left to the balancer makes none. known: see flow_is_kept(). Apart from translate() for the sake of its stack. */
static __noinline struct backend *begin_flow(const struct packet *p, const struct service *svc, struct scratch *s, int hook, int known)
{
	__u32 number = 0, cause;
	struct service_flow *f;
	struct backend *b;

	if (!p || !svc || !s)
		return NULL;
	b = flow_pick(p, svc, connection_hash(p->src, p->sport, p->dst, p->dport, p->protocol), &number, &cause);
	if (!b || (hook == HOOK_DEVICE && !(b->flags & BACKEND_LOCAL)))
		return b;
	f = &s->flow;
	__builtin_memset(f, 0, sizeof(*f));
	f->backend = number;
	f->generation = b->generation;
	f->service = svc->id;
	f->last_seen = clock_ticks();
	f->lifetime = flow_lifetime(p->protocol);
	f->flags = FLOW_LOCAL;
	/* What only opens a connection does not count yet, as it makes no flow. */
	if (!p->later_fragment && flow_is_kept(p, known, cause) && !bpf_map_update_elem(&service_flows, &s->flow_key, f, BPF_ANY))
		backend_count(number);
	return b;
}

/* Gives a packet to a frontend its backend. The scratch's judgement knows the ends as they are; its meant keeps the
 * frontend. It is no argument, because verifiers before 6.2 take none of a global function's for a key or value of a map.
 * Answers enum translation, or minus the reason to drop. */
__noinline int translate(struct __sk_buff *skb, struct packet *p, int hook)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	__u32 now = clock_ticks();
	struct backend *b = NULL;
	struct service_flow *f;
	struct service *svc;
	int reason, known;

	if (!p || !s || (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP && p->protocol != PROTO_SCTP))
		return NOT_TRANSLATED;
	flow_key_of(&s->flow_key, p);
	f = bpf_map_lookup_elem(&service_flows, &s->flow_key);
	/* A flow of the balancer's is none of a pod's: what is left to the balancer there would pass by the pod's policy. */
	known = f != NULL;
	svc = frontend_of_packet(p, &s->judgement.to, hook);
	/* The frontend may be another Service's now. What came in a tunnel may name one that only another node has. */
	if (f && (hook == HOOK_DEVICE || (f->flags & FLOW_LOCAL)) && 
	    (svc ? svc->id == f->service : hook == HOOK_DEVICE && (f->flags & FLOW_DSR)))
		b = flow_holds(f, p, now);
	if (b) {
		f->last_seen = now;
	} else {
		if (!svc)
			return NOT_TRANSLATED;
		s->meant.service = svc->id;
		if (!service_admits(svc, p->src))
			return -DROP_DENIED_BY_LB_SRC_RANGE_CHECK;
		b = begin_flow(p, svc, s, hook, known);
		if (!b)
			return -DROP_SERVICE_BACKEND_NOT_FOUND;
		if (hook == HOOK_DEVICE && !(b->flags & BACKEND_LOCAL)) {
			s->meant.service = 0;
			return FOR_BALANCER;
		}
		f = &s->flow;
	}
	if (!(f->flags & FLOW_LOCAL))
		return FOR_BALANCER;
	addr_copy(s->meant.addr, p->dst);
	s->meant.port = p->dport;
	s->meant.service = f->service;
	s->meant.hairpin = addr_equal(b->addr, p->src);
	reason = nat_rewrite(skb, p, END_DST, b->addr, b->port);
	if (reason)
		return -reason;
	addr_copy(p->dst, b->addr);
	p->dport = b->port;
	if (s->meant.hairpin) {
		gateway_of(s->flow_key.src, p->ipv6);
		reason = nat_rewrite(skb, p, END_SRC, s->flow_key.src, p->sport);
		if (reason)
			return -reason;
		addr_copy(p->src, s->flow_key.src);
	}
	return TRANSLATED;
}

/* A reply to who asked the frontend comes from the frontend. p stays what was read. 0, or the reason to drop.
 * Not static, so that it is verified once and not anew for every way that leads here. */
__noinline int answer(struct __sk_buff *skb, const struct packet *p, const struct ct_entry *e)
{
	int reason;

	if (!p || !e)
		return DROP_INVALID_PACKET_DROPPED;
	if (e->flags & CT_HAIRPIN) {
		reason = nat_rewrite(skb, p, END_DST, p->src, p->dport);
		if (reason)
			return reason;
	}
	return nat_rewrite(skb, p, END_SRC, e->frontend, e->frontend_port);
}

/* An ICMP error to a frontend speaks of a reply: it goes to the backend that sent it. 1 when it was given one. */
static __noinline int translate_error(struct __sk_buff *skb, struct packet *p, struct packet *inner, struct scratch *s)
{
	struct service_flow *f;
	struct backend *b;

	if (!p || !inner || !s || !addr_equal(inner->src, p->dst))
		return 0;
	addr_copy(s->flow_key.src, inner->dst);
	addr_copy(s->flow_key.dst, inner->src);
	s->flow_key.sport = inner->dport;
	s->flow_key.dport = inner->sport;
	s->flow_key.protocol = inner->protocol;
	s->flow_key.pad[0] = s->flow_key.pad[1] = s->flow_key.pad[2] = 0;
	f = bpf_map_lookup_elem(&service_flows, &s->flow_key);
	b = f && (f->flags & FLOW_LOCAL) ? flow_backend(f) : NULL;
	if (!b)
		return 0;
	if (nat_rewrite_inner(skb, p, inner, END_SRC << 16 | b->port, b->addr) || nat_rewrite(skb, p, END_DST, b->addr, 0))
		return 0;
	addr_copy(p->dst, b->addr);
	addr_copy(inner->src, b->addr);
	inner->sport = b->port;
	return 1;
}

/* An ICMP error to who asked the frontend speaks of a packet to the frontend, and comes from it when it is the backend's. */
static __noinline int answer_error(struct __sk_buff *skb, const struct packet *p, const struct packet *inner, const struct ct_entry *e)
{
	int reason;

	if (!p || !inner || !e)
		return DROP_INVALID_PACKET_DROPPED;
	reason = nat_rewrite_inner(skb, p, inner, END_DST << 16 | e->frontend_port, e->frontend);
	if (!reason && addr_equal(p->src, inner->dst))
		reason = nat_rewrite(skb, p, END_SRC, e->frontend, 0);
	return reason;
}
