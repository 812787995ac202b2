/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who is at each end of a connection, and what policy says of it. All precedence was resolved by the agent: here it is
 * two lookups per direction, four at most. */
#pragma once

#include "datapath_maps.h"
#include "drop_reasons.h"
#include "packet.h"

/* The slot whose epoch moves when a verdict about this address may have changed. User space computes the same. */
static __always_inline __u16 epoch_slot(const __u8 *addr)
{
	const __u32 *w = (const __u32 *)addr;
	/* Of an IPv4 address only the last word varies: the rest is folded in as a constant. */
	__u32 h = w[0] ^ (w[1] * 0x85ebca6b) ^ (w[2] * 0xc2b2ae35) ^ w[3];

	return (h * 0x9e3779b1) >> 16;
}

static __always_inline __u32 epoch_read(__u16 slot)
{
	__u32 k = slot, *e = bpf_map_lookup_elem(&epochs, &k);

	return e ? *(volatile __u32 *)e : 0;
}

/* By a key on the stack: verifiers before 6.2 take no argument of a global function for one. */
static __always_inline struct ipcache_entry *ipcache_find(const __u8 *addr)
{
	struct ipcache_key k __attribute__((aligned(8)));

	addr_copy_by4(k.addr, addr);
	return bpf_map_lookup_elem(&ipcache, &k);
}

/* Unknown addresses stay class 0: only rules that hold for every peer apply to them. */
static __always_inline void ipcache_lookup(const __u8 *addr, struct ipcache_entry *who)
{
	struct ipcache_entry *e = ipcache_find(addr);

	if (!e) {
		struct ipcache_prefix_key k = { .prefixlen = 128 };

		addr_copy_by4(k.addr, addr);
		e = bpf_map_lookup_elem(&ipcache_prefix, &k);
	}
	if (e)
		*who = *e;
	else
		__builtin_memset(who, 0, sizeof(*who));
}

static __always_inline struct policy_port *ruleset_lookup(struct policy_peer_key *k, __u8 protocol, __be16 port)
{
	struct policy_peer *r = bpf_map_lookup_elem(&policy_peer, k);
	struct policy_port_key pk = { .prefixlen = 56 };

	if (!r)
		return NULL;
	pk.ruleset = r->ruleset;
	pk.protocol = protocol;
	pk.port_hi = bpf_ntohs(port) >> 8;
	pk.port_lo = bpf_ntohs(port);
	return bpf_map_lookup_elem(&policy_ports, &pk);
}

/* The peer's ruleset, and what that does not speak of, the ruleset for every peer. */
static __always_inline struct policy_port *policy_lookup(__u32 subject, __u32 direction, __u32 peer, __u8 protocol, __be16 port)
{
	struct policy_peer_key k = { .subject = subject, .peer = peer, .direction = direction };
	struct policy_port *v = ruleset_lookup(&k, protocol, port);

	if (v || !peer)
		return v;
	k.peer = 0;
	return ruleset_lookup(&k, protocol, port);
}

/* Fills in both ends. The epochs are read first: what changes later makes the verdict stale, never fresh. */
__noinline int judge_ends(struct judgement *j)
{
	if (!j)
		return 0;
	j->epoch_slot[0] = epoch_slot(j->src);
	j->epoch_slot[1] = epoch_slot(j->dst);
	j->epoch[0] = epoch_read(j->epoch_slot[0]);
	j->epoch[1] = epoch_read(j->epoch_slot[1]);
	asm volatile("" ::: "memory");
	ipcache_lookup(j->src, &j->from);
	ipcache_lookup(j->dst, &j->to);
	return 0;
}

/* The verdict of both ends' policies; an end that is not a pod of this node has none here. No row means no. */
__noinline int judge_policy(struct judgement *j)
{
	struct policy_port *v;

	if (!j)
		return DROP_POLICY_DENIED;
	j->cookie[0] = 0;
	j->cookie[1] = 0;
	j->staged = 0;
	j->direction = 0;
	if (j->from.ifindex) {
		v = policy_lookup(j->from.class, DIRECTION_EGRESS, j->to.class, j->protocol, j->dport);
		if (v) {
			j->cookie[0] = v->cookie;
			if (!v->staged_allow)
				j->staged |= CT_STAGED_EGRESS_DENY;
		}
		if (!v || !v->allow) {
			j->direction = DIRECTION_EGRESS;
			return DROP_POLICY_DENIED;
		}
	}
	if (j->to.ifindex) {
		v = policy_lookup(j->to.class, DIRECTION_INGRESS, j->from.class, j->protocol, j->dport);
		if (v) {
			j->cookie[1] = v->cookie;
			if (!v->staged_allow)
				j->staged |= CT_STAGED_INGRESS_DENY;
		}
		if (!v || !v->allow) {
			j->direction = DIRECTION_INGRESS;
			return DROP_POLICY_DENIED;
		}
	}
	return 0;
}

static __always_inline void judge_swap(struct judgement *j)
{
	struct ipcache_entry who = j->from;
	__u32 epoch = j->epoch[0];
	__u16 slot = j->epoch_slot[0];
	__be16 port = j->sport;
	__u8 addr[16] __attribute__((aligned(8)));

	addr_copy(addr, j->src);
	addr_copy(j->src, j->dst);
	addr_copy(j->dst, addr);
	j->from = j->to;
	j->to = who;
	j->epoch[0] = j->epoch[1];
	j->epoch[1] = epoch;
	j->epoch_slot[0] = j->epoch_slot[1];
	j->epoch_slot[1] = slot;
	j->sport = j->dport;
	j->dport = port;
}
