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

/* A flow that is not in the map. */
enum fresh {
	FRESH_KEPT = 1,	   /* it is to be */
	FRESH_DERIVED = 2, /* the next packet leads to the same one */
};

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

/* What was found: a flow with its backend, or a reply. */
struct found {
	struct service_flow *flow;
	struct backend *backend;
	struct service_reply *reply;
	__u32 hash; /* of the connection, where it is fresh */
	int fresh; /* the flow is not in the map: balance_begin() makes it, see flow_is_kept() */
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

/* Behind which address the node translates; zeros: none. */
static __always_inline const __u8 *nat_address(const struct lb_config *config, int ipv6)
{
	return ipv6 ? config->nat6 : config->nat4;
}

/* The key under which a backend's answers are found. */
static __always_inline void reply_key_of(struct service_flow_key *k, const struct packet *p, const struct backend *b, const __u8 *nat_addr,
					 __be16 nat_port)
{
	addr_copy(k->src, b->addr);
	addr_copy(k->dst, nat_addr);
	k->sport = b->port;
	k->dport = nat_port;
	k->protocol = p->protocol;
	k->pad[0] = k->pad[1] = k->pad[2] = 0;
}

static __always_inline void reply_begin(struct service_reply *r, const struct packet *p, const struct service_flow *f)
{
	__builtin_memset(r, 0, sizeof(*r));
	addr_copy(r->client, p->src);
	addr_copy(r->frontend, p->dst);
	r->client_port = p->sport;
	r->frontend_port = p->dport;
	r->last_seen = f->last_seen;
	r->lifetime = f->lifetime;
}

static __always_inline int reply_is_of(const struct service_reply *r, const struct packet *p)
{
	return addr_equal(r->client, p->src) && r->client_port == p->sport && addr_equal(r->frontend, p->dst) && r->frontend_port == p->dport;
}

/* The ports that a connection tries, the same ones in the same order each time. Steps are odd, so that all are come by. */
static __always_inline __be16 nat_port(__u32 hash, __u32 i)
{
	return bpf_htons(NAT_PORT_MIN + (hash + i * ((hash >> 16) | 1)) % (NAT_PORT_MAX - NAT_PORT_MIN + 1));
}

/* A port of ours for a connection to a backend: its own where the table of flows forgot it, else one that no other has.
 * s->reply_key is complete but for the port, s->reply is what is to be found there. Answers how many ports were passed
 * over, or minus the reason to drop. Not static, so that it is verified once and not anew for every way that leads here; s is
 * found anew because verifiers before 6.2 take no argument of a global function for a key. */
__noinline int take_nat_port(const struct packet *p, __u32 hash)
{
	__u32 i, seen, now, zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct service_flow_key *k;
	struct service_reply *r;

	if (!p || !s)
		return -DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
	k = &s->reply_key;
	r = &s->reply;
	now = r->last_seen;
	for (i = 0; i < NAT_TRIES; i++) {
		struct service_reply *other;

		k->dport = nat_port(hash, i);
		/* SCTP keeps its port while nobody else has it: its checksum is dear to change, and not to be changed in fragments. */
		if (p->protocol == PROTO_SCTP && !i && bpf_ntohs(p->sport) >= NAT_PORT_MIN)
			k->dport = p->sport;
		s->flow.nat_port = k->dport;
		other = bpf_map_lookup_elem(&service_replies, k);
		if (!other) {
			if (!bpf_map_update_elem(&service_replies, k, r, BPF_NOEXIST))
				return i;
			other = bpf_map_lookup_elem(&service_replies, k);
		}
		if (!other)
			continue;
		/* What is over does not go on as another connection: the backend may not be done with the first. */
		if (reply_is_of(other, p) && !(other->flags & FLOW_CLOSING) && other->lifetime != lifetime_tcp_closing) {
			other->last_seen = now;
			other->lifetime = r->lifetime;
			return i;
		}
		seen = other->last_seen;
		/* Of two CPUs that find it over, one gets it. */
		if (now - seen > other->lifetime && now - seen < (__u32)-1000 &&
		    __sync_val_compare_and_swap(&other->last_seen, seen, now) == seen) {
			bpf_map_update_elem(&service_replies, k, r, BPF_ANY);
			return i;
		}
	}
	count(COUNTER_NAT_FAILED);
	return -DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
}

/* The way to a backend as another connection to it found it a moment ago. */
static __always_inline void way_recall(struct service_flow *f)
{
	__u32 index = f->backend & (BACKEND_WAYS - 1);
	struct backend_way *w = bpf_map_lookup_elem(&backend_ways, &index);

	if (!w || w->backend != f->backend || w->generation != f->generation || f->last_seen - w->way.checked > HOP_LIFETIME)
		return;
	f->way = w->way;
}

static __always_inline void way_remember(const struct service_flow *f)
{
	__u32 index = f->backend & (BACKEND_WAYS - 1);
	struct backend_way *w = bpf_map_lookup_elem(&backend_ways, &index);

	if (!w || !f->way.macs_known)
		return;
	w->backend = 0; /* who reads meanwhile finds nobody's */
	asm volatile("" ::: "memory");
	w->generation = f->generation;
	w->way = f->way;
	asm volatile("" ::: "memory");
	w->backend = f->backend;
}

/* A connection that is not known yet: picks its backend. known: the map has a flow of these ends that is over. */
static __always_inline int balance_new(const struct packet *p, const struct service *svc, struct scratch *s, struct found *found, int known,
				       __u32 now)
{
	__u32 number = 0, cause;
	struct ipcache_entry *from;
	struct service_flow *f;
	struct lb_config *config;
	const __u8 *mine;
	struct backend *b;

	/* This node and its pods do not come in over a device. */
	from = bpf_map_lookup_elem(&ipcache, p->src);
	if (from && (from->ifindex || (from->flags & IPCACHE_THIS_NODE)))
		return -DROP_INVALID_SOURCE_IP;
	if (!service_admits(svc, p->src))
		return -DROP_DENIED_BY_LB_SRC_RANGE_CHECK;
	found->hash = connection_hash(p->src, p->sport, p->dst, p->dport, p->protocol);
	b = flow_pick(p, svc, found->hash, &number, &cause);
	if (!b || (b->flags & BACKEND_LOCAL))
		return WAY_HERE;
	f = &s->flow;
	__builtin_memset(f, 0, sizeof(*f));
	f->backend = number;
	f->generation = b->generation;
	f->service = svc->id;
	f->last_seen = now;
	f->lifetime = flow_lifetime(p->protocol);
	if (b->flags & BACKEND_NODE)
		f->flags = FLOW_STACK;
	config = lb_config_read();
	if (!config)
		return WAY_NONE;
	if ((svc->flags & SERVICE_DSR) && !(b->flags & BACKEND_NODE)) {
		mine = config->flags & LB_DSR_TUNNEL ? (p->ipv6 ? config->node6 : config->node4) : NULL;
		f->flags |= FLOW_DSR;
	} else {
		mine = nat_address(config, p->ipv6);
		f->flags |= FLOW_SNAT;
	}
	/* The node does not know its block yet, or has none of this family: a flow from nowhere would outlive that. */
	if (mine && addr_is_unset(mine))
		return -DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
	way_recall(f);
	found->flow = f;
	found->backend = b;
	found->fresh = flow_is_kept(p, known, cause) ? FRESH_KEPT : FRESH_DERIVED;
	return f->flags & FLOW_STACK ? WAY_STACK : WAY_BACKEND;
}

/* Makes the connection that balance_new() thought of: with a port of ours, and in the table. 0, or the reason to drop. */
static __always_inline int balance_begin(const struct packet *p, const struct found *found, struct scratch *s)
{
	struct lb_config *config;
	struct service_flow *f;
	int tries = 0;

	if (!found->backend)
		return DROP_CT_MAP_INSERTION_FAILED;
	f = &s->flow;
	if (f->flags & FLOW_SNAT) {
		config = lb_config_read();
		if (!config)
			return DROP_NO_MAPPING_FOR_NAT_MASQUERADE;
		reply_begin(&s->reply, p, f);
		if (found->fresh == FRESH_DERIVED)
			s->reply.lifetime = is_tcp_opening(p) ? lifetime_tcp_opening : lifetime_tcp_closing;
		reply_key_of(&s->reply_key, p, found->backend, nat_address(config, p->ipv6), nat_port(found->hash, 0));
		f->nat_port = s->reply_key.dport;
		/* Of what begins, the first one is mostly free. SCTP asks for its own before, and the rest has one already. */
		if (!(is_tcp_opening(p) || p->protocol == IPPROTO_UDP) ||
		    bpf_map_update_elem(&service_replies, &s->reply_key, &s->reply, BPF_NOEXIST)) {
			tries = take_nat_port(p, found->hash);
			if (tries < 0)
				return -tries;
		}
	}
	/* Which port it is that was not the first would not be found again for sure. */
	if (found->fresh == FRESH_DERIVED && !tries)
		return 0;
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
	struct backend *b;

	if (!svc) {
		struct service_reply *r;
		struct lb_config *config;

		if (bpf_ntohs(p->dport) < NAT_PORT_MIN)
			return WAY_NONE;
		config = lb_config_read();
		if (!config || !addr_equal(p->dst, nat_address(config, p->ipv6)))
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
	b = f && f->service == svc->id ? flow_holds(f, p, now) : NULL; /* the frontend may be another Service's now */
	if (!b)
		return balance_new(p, svc, s, found, f != NULL, now);
	if (f->flags & FLOW_LOCAL)
		return WAY_HERE;
	f->last_seen = now;
	found->flow = f;
	found->backend = b;
	return f->flags & FLOW_STACK ? WAY_STACK : WAY_BACKEND;
}

/* FIN and RST: what is over frees its port soon. Each direction has its own entry. */
static __noinline int balance_closing(const struct packet *p, struct found *found, struct scratch *s)
{
	struct lb_config *config = lb_config_read();
	__u8 *mine, *others = NULL;
	struct service_flow_key *k;
	struct service_reply *r;
	struct service_flow *f;

	if (!p || !found || !s || !config)
		return 0;
	k = &s->reply_key;
	f = found->flow;
	r = found->reply;
	if (f) {
		mine = &f->flags;
		if ((f->flags & FLOW_SNAT) && found->backend) {
			reply_key_of(k, p, found->backend, nat_address(config, p->ipv6), f->nat_port);
			r = bpf_map_lookup_elem(&service_replies, k);
		}
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
static __noinline int keep_reply(const struct packet *p, struct service_flow *f, const struct backend *b, struct scratch *s)
{
	struct lb_config *config = lb_config_read();
	struct service_reply *r;

	if (!p || !f || !b || !s || !config || !(f->flags & FLOW_SNAT))
		return 1;
	reply_key_of(&s->reply_key, p, b, nat_address(config, p->ipv6), f->nat_port);
	r = bpf_map_lookup_elem(&service_replies, &s->reply_key);
	if (r) {
		if (!reply_is_of(r, p)) {
			f->generation ^= 1U << 31; /* nobody's: the next packet begins a flow of its own */
			return 0;
		}
		r->last_seen = f->last_seen;
		return 1;
	}
	reply_begin(&s->reply, p, f);
	bpf_map_update_elem(&service_replies, &s->reply_key, &s->reply, BPF_NOEXIST);
	return 1;
}
