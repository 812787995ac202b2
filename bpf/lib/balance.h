/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets from outside to backends on other nodes, and the way back: which backend, behind which port of ours. The same
 * for XDP and for tc; how a packet is then changed and sent is each hook's own. */
#pragma once

#include "clock.h"
#include "config.h"
#include "datapath_maps.h"
#include "drop_reasons.h"
#include "events.h"
#include "service.h"
#include "service_flow.h"

enum way {
	WAY_NONE = 0,	  /* no service's packet */
	WAY_HERE = 1,	  /* to a pod of this node, or to nobody: the connection table's matter */
	WAY_BACKEND = 2,  /* to a backend elsewhere */
	WAY_CLIENT = 3,	  /* a backend's answer, to the client */
	WAY_STACK = 4,	  /* to a pod on this node's own network */
};

/* Ways are looked up anew this often, in ticks: about a second. */
#define HOP_LIFETIME 954

/* Ports tried for a connection before it is given up. */
#define NAT_TRIES 16

/* What was found: one of the two. */
struct found {
	struct service_flow *flow;
	struct service_reply *reply;
	int fresh; /* the flow is not in the map yet: balance_begin() puts it there */
};

static __always_inline struct lb_config *lb_config_read(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lb_config, &zero);
}

static __always_inline int balanced_protocol(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == PROTO_SCTP;
}

/* The key under which a backend's answers are found. */
static __always_inline void reply_key_of(struct service_flow_key *k, const struct service_flow *f, __u8 protocol)
{
	addr_copy(k->src, f->addr);
	addr_copy(k->dst, f->nat_addr);
	k->sport = f->port;
	k->dport = f->nat_port;
	k->protocol = protocol;
	k->pad[0] = k->pad[1] = k->pad[2] = 0;
}

/* A port of ours for a connection to a backend: none that another one has. 0, or the reason to drop. */
static __noinline int take_nat_port(const struct packet *p, struct service_flow *f, struct service_reply *r, struct service_flow_key *k,
				    __u32 hash)
{
	__u32 i, seen, now = clock_ticks();

	if (!p || !f || !r || !k)
		return DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
	addr_copy(r->client, p->src);
	addr_copy(r->frontend, p->dst);
	r->client_port = p->sport;
	r->frontend_port = p->dport;
	r->service = f->service;
	r->last_seen = now;
	r->lifetime = f->lifetime;
	reply_key_of(k, f, p->protocol);
	for (i = 0; i < NAT_TRIES; i++) {
		struct service_reply *other;

		/* Steps are odd, so that all ports are come by. */
		k->dport = bpf_htons(NAT_PORT_MIN + (hash + i * ((hash >> 16) | 1)) % (NAT_PORT_MAX - NAT_PORT_MIN + 1));
		if (p->protocol == PROTO_SCTP) /* its checksum is of the whole packet: it keeps the port */
			k->dport = p->sport;
		if (bpf_ntohs(k->dport) < NAT_PORT_MIN)
			break;
		if (!bpf_map_update_elem(&service_replies, k, r, BPF_NOEXIST)) {
			f->nat_port = k->dport;
			return 0;
		}
		other = bpf_map_lookup_elem(&service_replies, k);
		seen = other ? other->last_seen : now;
		/* Of two CPUs that find it over, one gets it. */
		if (other && now - seen > other->lifetime && now - seen < (__u32)-1000 &&
		    __sync_val_compare_and_swap(&other->last_seen, seen, now) == seen) {
			bpf_map_update_elem(&service_replies, k, r, BPF_ANY);
			f->nat_port = k->dport;
			return 0;
		}
	}
	count(COUNTER_NAT_FAILED);
	return DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
}

/* The way to a backend as another connection to it found it a moment ago. */
static __always_inline void way_recall(struct service_flow *f)
{
	__u32 index = f->backend & (BACKEND_WAYS - 1);
	struct backend_way *w = bpf_map_lookup_elem(&backend_ways, &index);

	if (!w || w->backend != f->backend || w->generation != f->generation || f->last_seen - w->checked > HOP_LIFETIME)
		return;
	__builtin_memcpy(f->macs, w->macs, 12);
	f->macs_known = 1;
	f->mtu = w->mtu;
	f->hop_checked = w->checked;
	f->ifindex = w->ifindex;
}

static __always_inline void way_remember(const struct service_flow *f)
{
	__u32 index = f->backend & (BACKEND_WAYS - 1);
	struct backend_way *w = bpf_map_lookup_elem(&backend_ways, &index);

	if (!w || !f->macs_known)
		return;
	w->backend = 0; /* who reads meanwhile finds nobody's */
	asm volatile("" ::: "memory");
	__builtin_memcpy(w->macs, f->macs, 12);
	w->generation = f->generation;
	w->mtu = f->mtu;
	w->ifindex = f->ifindex;
	w->checked = f->hop_checked;
	asm volatile("" ::: "memory");
	w->backend = f->backend;
}

/* A connection that is not known yet: picks its backend. */
static __noinline int balance_new(const struct packet *p, const struct service *svc, struct scratch *s, struct found *found)
{
	struct affinity_key who __attribute__((aligned(8)));
	__u32 number = 0, cause;
	struct ipcache_entry *from;
	struct service_flow *f;
	struct lb_config *config;
	const __u8 *mine;
	struct backend *b;

	if (!p || !svc || !s || !found)
		return WAY_NONE;
	/* This node and its pods do not come in over a device. */
	from = bpf_map_lookup_elem(&ipcache, p->src);
	if (from && (from->ifindex || (from->flags & IPCACHE_THIS_NODE)))
		return -DROP_INVALID_SOURCE_IP;
	if (!service_admits(svc, p->src))
		return -DROP_DENIED_BY_LB_SRC_RANGE_CHECK;
	affinity_key_of_client(&who, p->src);
	b = service_pick(svc, connection_hash(p->src, p->sport, p->dst, p->dport, p->protocol), &who, &number, &cause);
	if (!b || (b->flags & BACKEND_LOCAL))
		return WAY_HERE;
	f = &s->flow;
	__builtin_memset(f, 0, sizeof(*f));
	f->backend = number;
	f->generation = b->generation;
	f->service = svc->id;
	f->last_seen = clock_ticks();
	f->lifetime = flow_lifetime(p->protocol);
	f->port = b->port;
	addr_copy(f->addr, b->addr);
	if (b->flags & BACKEND_NODE)
		f->flags = FLOW_STACK;
	config = lb_config_read();
	if (!config)
		return WAY_NONE;
	if ((svc->flags & SERVICE_DSR) && !(b->flags & BACKEND_NODE)) {
		mine = config->flags & LB_DSR_TUNNEL ? (p->ipv6 ? config->node6 : config->node4) : NULL;
		f->flags |= FLOW_DSR;
	} else {
		mine = p->ipv6 ? config->nat6 : config->nat4;
		addr_copy(f->nat_addr, mine);
		f->flags |= FLOW_SNAT;
	}
	/* The node does not know its block yet, or has none of this family: a flow from nowhere would outlive that. */
	if (mine && addr_is_unset(mine))
		return -DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
	way_recall(f);
	found->flow = f;
	found->fresh = 1;
	return f->flags & FLOW_STACK ? WAY_STACK : WAY_BACKEND;
}

/* Makes the connection that balance_new() thought of: with a port of ours, and in the table. 0, or the reason to drop. */
static __noinline int balance_begin(const struct packet *p, struct scratch *s)
{
	struct service_flow *f;
	int reason;

	if (!p || !s)
		return DROP_CT_MAP_INSERTION_FAILED;
	f = &s->flow;
	if (f->flags & FLOW_SNAT) {
		__builtin_memset(&s->reply, 0, sizeof(s->reply));
		reason = take_nat_port(p, f, &s->reply, &s->reply_key, connection_hash(p->src, p->sport, p->dst, p->dport, p->protocol));
		if (reason)
			return reason;
	}
	if (bpf_map_update_elem(&service_flows, &s->flow_key, f, BPF_ANY))
		return DROP_CT_MAP_INSERTION_FAILED;
	backend_count(f->backend);
	return 0;
}

/* Which way a packet from a device goes, or minus the reason to drop it. */
static __always_inline int balance(const struct packet *p, struct scratch *s, struct found *found, __u32 now)
{
	struct service *svc = service_lookup(p->dst, p->dport, p->protocol, SCOPE_OUTSIDE);
	struct service_flow *f;

	if (!svc) {
		struct service_reply *r;
		struct lb_config *config;

		if (bpf_ntohs(p->dport) < NAT_PORT_MIN)
			return WAY_NONE;
		config = lb_config_read();
		if (!config || !addr_equal(p->dst, p->ipv6 ? config->nat6 : config->nat4))
			return WAY_NONE;
		flow_key_of(&s->flow_key, p);
		r = bpf_map_lookup_elem(&service_replies, &s->flow_key);
		if (!r)
			return WAY_NONE;
		r->last_seen = now;
		found->reply = r;
		return WAY_CLIENT;
	}
	flow_key_of(&s->flow_key, p);
	f = bpf_map_lookup_elem(&service_flows, &s->flow_key);
	if (!f || !flow_holds(f, p, now))
		return balance_new(p, svc, s, found);
	if (f->flags & FLOW_LOCAL)
		return WAY_HERE;
	f->last_seen = now;
	found->flow = f;
	return f->flags & FLOW_STACK ? WAY_STACK : WAY_BACKEND;
}

/* FIN and RST: what is over frees its port soon. Each direction has its own entry. */
static __noinline int balance_closing(const struct packet *p, struct service_flow *f, struct service_reply *r, struct scratch *s)
{
	__u8 *mine, *others = NULL;
	struct service_flow_key *k;

	if (!p || !s)
		return 0;
	k = &s->reply_key;
	if (f) {
		mine = &f->flags;
		reply_key_of(k, f, p->protocol);
		r = f->flags & FLOW_SNAT ? bpf_map_lookup_elem(&service_replies, k) : NULL;
		if (r)
			others = &r->flags;
	} else if (r) {
		mine = &r->flags;
		addr_copy(k->src, r->client);
		addr_copy(k->dst, r->frontend);
		k->sport = r->client_port;
		k->dport = r->frontend_port;
		k->protocol = p->protocol;
		k->pad[0] = k->pad[1] = k->pad[2] = 0;
		f = bpf_map_lookup_elem(&service_flows, k);
		if (f)
			others = &f->flags;
	} else {
		return 0;
	}
	*mine |= FLOW_CLOSING;
	if ((p->tcp_flags & TCP_RST) || (others && (*others & FLOW_CLOSING))) {
		if (f)
			f->lifetime = lifetime_tcp_closing;
		if (r)
			r->lifetime = lifetime_tcp_closing;
	}
	return 0;
}

/* Once a second a flow that is translated makes sure that its answers still find their way. Where the table forgot the
 * answers and gave the port away, the flow is over: it would speak as somebody else's. 1 when it goes on. */
static __noinline int keep_reply(const struct packet *p, struct service_flow *f, struct scratch *s)
{
	struct service_reply *r;

	if (!p || !f || !s || !(f->flags & FLOW_SNAT))
		return 1;
	reply_key_of(&s->reply_key, f, p->protocol);
	r = bpf_map_lookup_elem(&service_replies, &s->reply_key);
	if (r) {
		if (!addr_equal(r->client, p->src) || r->client_port != p->sport || !addr_equal(r->frontend, p->dst) ||
		    r->frontend_port != p->dport) {
			f->generation ^= 1U << 31; /* nobody's: the next packet begins a flow of its own */
			return 0;
		}
		r->last_seen = f->last_seen;
		return 1;
	}
	r = &s->reply;
	__builtin_memset(r, 0, sizeof(*r));
	addr_copy(r->client, p->src);
	addr_copy(r->frontend, p->dst);
	r->client_port = p->sport;
	r->frontend_port = p->dport;
	r->service = f->service;
	r->last_seen = f->last_seen;
	r->lifetime = f->lifetime;
	bpf_map_update_elem(&service_replies, &s->reply_key, r, BPF_NOEXIST);
	return 1;
}
