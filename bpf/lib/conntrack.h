/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One entry per connection and node, found by either direction with one lookup. States and lifetimes of TCP follow what
 * was seen, not sequence windows: the entry admits replies, the ends' own stacks check sequences. */
#pragma once

#include "clock.h"
#include "config.h"
#include "datapath_maps.h"
#include "events.h"
#include "owners.h"
#include "packet.h"
#include "policy.h"

/* Builds the key; 1 when the packet's source is the key's hi end. */
static __always_inline int ct4_key_init(struct ct4_key *k, const struct packet *p)
{
	__be32 s = *(const __u32 *)(p->src + 12), d = *(const __u32 *)(p->dst + 12);
	int hi = ((__u64)s << 16 | p->sport) > ((__u64)d << 16 | p->dport);

	k->lo_addr = hi ? d : s;
	k->hi_addr = hi ? s : d;
	k->lo_port = hi ? p->dport : p->sport;
	k->hi_port = hi ? p->sport : p->dport;
	k->protocol = p->protocol;
	k->leg = 0;
	k->pad = 0;
	return hi;
}

static __always_inline int ct6_key_init(struct ct6_key *k, const struct packet *p)
{
	const __u64 *s = (const __u64 *)p->src, *d = (const __u64 *)p->dst;
	int hi;

	if (s[0] != d[0])
		hi = s[0] > d[0];
	else if (s[1] != d[1])
		hi = s[1] > d[1];
	else
		hi = p->sport > p->dport;
	addr_copy(k->lo_addr, hi ? p->dst : p->src);
	addr_copy(k->hi_addr, hi ? p->src : p->dst);
	k->lo_port = hi ? p->dport : p->sport;
	k->hi_port = hi ? p->sport : p->dport;
	k->protocol = p->protocol;
	k->leg = 0;
	k->pad = 0;
	return hi;
}

static __always_inline int ct_source_is_hi(const struct packet *p)
{
	struct ct4_key k4;
	struct ct6_key k6 __attribute__((aligned(8)));

	return p->ipv6 ? ct6_key_init(&k6, p) : ct4_key_init(&k4, p);
}

static __always_inline struct ct_entry *ct_lookup(const struct packet *p, int *hi)
{
	if (p->ipv6) {
		struct ct6_key k __attribute__((aligned(8)));

		*hi = ct6_key_init(&k, p);
		return bpf_map_lookup_elem(&ct6, &k);
	} else {
		struct ct4_key k;

		*hi = ct4_key_init(&k, p);
		return bpf_map_lookup_elem(&ct4, &k);
	}
}

/* The same with a stack of its own: the slow path has none left for keys. */
static __noinline struct ct_entry *ct_find(const struct packet *p, int *hi)
{
	return ct_lookup(p, hi);
}

/* Inserts the entry in the making. It is found anew: verifiers before 6.2 take no argument of a global function for the
 * value of a map. */
__noinline int ct_insert(const struct packet *p)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (!p || !s)
		return -1;
	if (p->ipv6) {
		struct ct6_key k __attribute__((aligned(8)));

		ct6_key_init(&k, p);
		return bpf_map_update_elem(&ct6, &k, &s->entry, BPF_ANY);
	} else {
		struct ct4_key k;

		ct4_key_init(&k, p);
		return bpf_map_update_elem(&ct4, &k, &s->entry, BPF_ANY);
	}
}

__noinline int ct_delete(const struct packet *p)
{
	if (!p)
		return -1;
	if (p->ipv6) {
		struct ct6_key k __attribute__((aligned(8)));

		ct6_key_init(&k, p);
		return bpf_map_delete_elem(&ct6, &k);
	} else {
		struct ct4_key k;

		ct4_key_init(&k, p);
		return bpf_map_delete_elem(&ct4, &k);
	}
}

/* Reports an entry; p is any packet of the connection and d its direction, for the addresses. */
__noinline int ct_report(const struct packet *p, const struct ct_entry *e, int d, int type, int reason)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct event *ev;

	if (!p || !e || !s)
		return 0;
	ev = event_reserve();
	if (!ev)
		return 0;
	event_from_entry(ev, e, type, reason);
	addr_copy(ev->src, d ? p->dst : p->src);
	addr_copy(ev->dst, d ? p->src : p->dst);
	ev->sport = d ? p->dport : p->sport;
	ev->dport = d ? p->sport : p->dport;
	ev->protocol = p->protocol;
	name_owners(ev, &s->socket_key, &s->address);
	event_submit(ev);
	return 0;
}

static __always_inline __u32 ct_lifetime(__u8 protocol, __u8 state)
{
	if (protocol == IPPROTO_TCP || protocol == PROTO_SCTP) {
		if (state == CT_OPENING)
			return lifetime_tcp_opening;
		return state == CT_OPEN ? lifetime_tcp_open : lifetime_tcp_closing;
	}
	return state == CT_OPENING ? lifetime_other_opening : lifetime_other_open;
}

static __always_inline void ct_set_state(struct ct_entry *e, __u8 protocol, __u8 state)
{
	e->state = state;
	e->lifetime = ct_lifetime(protocol, state);
}

/* Another CPU may have seen a packet a moment later than this one's clock says. */
static __always_inline int ct_expired(const struct ct_entry *e)
{
	__u32 idle = clock_ticks() - e->last_seen;

	return idle > e->lifetime && idle < (__u32)-1000;
}

static __always_inline int ct_epochs_hold(const struct ct_entry *e)
{
	return epoch_read(e->epoch_slot[0]) == e->epoch[0] && epoch_read(e->epoch_slot[1]) == e->epoch[1];
}

static __always_inline void ct_account(struct __sk_buff *skb, struct ct_entry *e, int d, __u32 now)
{
	__u32 segs = skb->gso_segs;

	e->last_seen = now;
	__sync_fetch_and_add(&e->bytes[d & 1], skb->len);
	__sync_fetch_and_add(&e->packets[d & 1], segs > 1 ? segs : 1);
}

/* FIN and RST. Returns why the connection is over, or 0. END_CLOSED means that its entry can go: both ends' FINs were
 * acknowledged. Not before: what is then still under way would look new, and be denied. */
__noinline int ct_tcp_close(struct ct_entry *e, const struct packet *p, int d)
{
	int other;

	if (!e || !p || e->state == CT_CLOSED)
		return 0;
	d &= 1;
	other = d ^ 1;
	if ((p->tcp_flags & (TCP_FIN | TCP_RST)) && !(e->fin_acked & ~CT_FINS_ACKED))
		e->fin_acked |= CT_CLOSED_FIRST << d;
	if (p->tcp_flags & TCP_RST) {
		ct_set_state(e, IPPROTO_TCP, CT_CLOSED);
		return END_RESET;
	}
	if (p->tcp_flags & TCP_FIN)
		e->fin_end[d] = bpf_ntohl(p->tcp_seq) + p->payload_len + 1;
	if ((p->tcp_flags & TCP_ACK) && (e->tcp_flags[other] & TCP_FIN) && (__s32)(bpf_ntohl(p->tcp_ack) - e->fin_end[other]) >= 0)
		e->fin_acked |= 1 << other;
	if ((e->tcp_flags[0] & e->tcp_flags[1] & TCP_FIN) && e->state < CT_CLOSING)
		ct_set_state(e, IPPROTO_TCP, CT_CLOSING);
	return (e->fin_acked & CT_FINS_ACKED) == CT_FINS_ACKED ? END_CLOSED : 0;
}
