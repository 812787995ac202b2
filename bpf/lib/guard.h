/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The host firewall, on the node's devices: connections between the node itself and other machines. They share tables,
 * judgement and events with those of pods; what is allowed stays with the kernel's stack. What neither comes from the
 * node nor is for it is not judged here. */
#pragma once

#include "judge.h"

enum guard_way { GUARD_IN = 0, GUARD_OUT = 1 };

static __always_inline int is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* As remember(), with ends that are the stack's to send to. */
static __always_inline void guard_remember(struct __sk_buff *skb, struct ct_entry *e, const struct judgement *j, int d, int reason)
{
	remember_verdict(e, j, reason);
	e->out_kind[0] = OUT_STACK;
	e->out_kind[1] = OUT_STACK;
	e->in_ifindex[d & 1] = skb->ifindex;
	remember_epochs(e, j, reason);
}

static __noinline int guard_drop(struct __sk_buff *skb, struct packet *p, const struct judgement *j, int d, int reason)
{
	if (!p || !j)
		return TC_ACT_SHOT;
	return drop_judged(skb, p, j, d & 1, reason);
}

/* Nobody's policy speaks of what only goes by behind the node's address. */
static __always_inline int judge_nothing(struct judgement *j)
{
	j->cookie[0] = 0;
	j->cookie[1] = 0;
	j->staged = 0;
	j->audited = 0;
	j->direction = 0;
	return 0;
}

/* A connection that is known. */
static __noinline int guard_known(struct __sk_buff *skb, struct packet *p, struct ct_entry *e, int d, struct judgement *j)
{
	int reason;

	if (!p || !e || !j)
		return TC_ACT_SHOT;
	d &= 1;
	if (!ct_epochs_hold(e)) {
		addr_copy(j->src, d ? p->dst : p->src);
		addr_copy(j->dst, d ? p->src : p->dst);
		j->sport = d ? p->dport : p->sport;
		j->dport = policy_port_of(p, e->icmp_type, d ? p->sport : p->dport);
		j->protocol = p->protocol;
		judge_ends(j);
		count(COUNTER_REJUDGED);
		reason = e->flags & CT_MASQUERADED ? judge_nothing(j) : judge_policy(j);
		guard_remember(skb, e, j, d, reason);
		if (reason)
			return guard_drop(skb, p, j, d, reason);
	}
	e->in_ifindex[d] = skb->ifindex;
	if (d && e->state == CT_OPENING)
		ct_set_state(e, p->protocol, CT_OPEN);
	e->tcp_flags[d] |= p->tcp_flags;
	ct_account(skb, e, d, clock_ticks());
	if (p->protocol == IPPROTO_TCP && ((p->tcp_flags & (TCP_FIN | TCP_RST)) || e->state >= CT_CLOSING)) {
		reason = ct_tcp_close(e, p, d);
		if (reason) {
			ct_report(p, e, d, EVENT_END, reason);
			count(COUNTER_CT_ENDED);
			if (reason == END_CLOSED)
				ct_delete(p);
			return TC_ACT_UNSPEC;
		}
	}
	if ((__s32)(e->last_seen - e->next_report) >= 0) {
		e->next_report = e->last_seen + report_interval_ticks;
		ct_report(p, e, d, EVENT_ACTIVE, 0);
	}
	return TC_ACT_UNSPEC;
}

/* Fills a new entry from the verdict. d: direction of the packet at hand. */
static __always_inline void guard_begin(struct __sk_buff *skb, const struct packet *p, struct ct_entry *e, const struct judgement *j, int d, int flags)
{
	__builtin_memset(e, 0, sizeof(*e));
	e->flags = (p->ipv6 ? CT_IPV6 : 0) | flags | (ct_source_is_hi(p) != d ? CT_ORIGINATOR_HI : 0);
	guard_remember(skb, e, j, d, 0);
	e->last_seen = clock_ticks();
	e->next_report = e->last_seen + report_interval_ticks;
	e->created_ns = bpf_ktime_get_ns();
	e->icmp_type = p->icmp_type;
	e->icmp_code = p->icmp_code;
	e->tcp_flags[d] = p->tcp_flags;
	ct_set_state(e, p->protocol, CT_OPENING);
	ct_account(skb, e, d, e->last_seen);
}

/* Messages that open no connection (neighbour discovery, errors about what is not known): judged one by one, and nothing is
 * remembered. What is only watched is reported within the rate of drops. */
static __noinline int guard_message(struct __sk_buff *skb, struct packet *p, struct scratch *s)
{
	struct judgement *j;
	__u32 suppressed = 0;
	int reason;

	if (!p || !s)
		return TC_ACT_SHOT;
	j = &s->judgement;
	reason = judge_policy(j);
	if (reason)
		return guard_drop(skb, p, j, 0, reason);
	if ((j->audited || j->staged) && drop_may_report(skb->ifindex, DROP_POLICY_DENIED, &suppressed)) {
		guard_begin(skb, p, &s->entry, j, 0, 0);
		ct_report(p, &s->entry, 0, EVENT_NEW, 0);
	}
	return TC_ACT_UNSPEC;
}

#define GUARD_MASQUERADED 2
#define GUARD_OUTWARD 4 /* whom the packet is from hears of it from the stack: an answer would leave the node */

/* The start of a connection, or a segment from the middle of one: see new_connection(). */
static __noinline int guard_new(struct __sk_buff *skb, struct packet *p, struct scratch *s, struct ct_entry *old, int how)
{
	int reason, d = 0, midstream, cause = how >> 8, was = how & 1;
	struct judgement *j;
	struct ct_entry *e;

	if (!p || !s)
		return TC_ACT_SHOT;
	j = &s->judgement;
	e = &s->entry;
	count(COUNTER_JUDGED);
	midstream = p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
	reason = how & GUARD_MASQUERADED ? judge_nothing(j) : judge_policy(j);
	if (midstream && (reason || j->audited)) {
		judge_swap(j);
		if (judge_policy(j) || j->audited) {
			judge_swap(j);
			reason = judge_policy(j);
		} else {
			reason = 0;
			d = 1;
		}
	}
	if (reason)
		return how & GUARD_OUTWARD ? guard_drop(skb, p, j, 0, reason) : deny(skb, p, s, reason);
	guard_begin(skb, p, e, j, d, (midstream ? CT_MIDSTREAM : 0) | (how & GUARD_MASQUERADED ? CT_MASQUERADED : 0));
	if (midstream && (p->tcp_flags & TCP_RST))
		return TC_ACT_UNSPEC;
	if (midstream && (p->tcp_flags & TCP_FIN))
		ct_set_state(e, p->protocol, CT_CLOSING);
	if (old && old->state != CT_CLOSED) { /* a reset was reported when it was seen */
		ct_report(p, old, was, EVENT_END, cause);
		count(COUNTER_CT_ENDED);
	}
	/* Without room the stack still has the packet: its verdict does not hang on the table. */
	if (ct_insert(p)) {
		count(COUNTER_CT_FAILED);
		return TC_ACT_UNSPEC;
	}
	count(COUNTER_CT_CREATED);
	ct_report(p, e, d, EVENT_NEW, 0);
	return TC_ACT_UNSPEC;
}

/* Does the error speak of a connection that may go on? */
static __always_inline int guard_error_is_related(struct __sk_buff *skb, const struct packet *p, struct packet *inner)
{
	struct ct_entry *e;
	int hi = 0;

	if (read_inner(skb, p, inner) || !addr_equal(inner->src, p->dst))
		return 0;
	e = ct_find(inner, &hi);
	return e && e->out_kind[0] == OUT_STACK && !e->verdict && !ct_expired(e) && ct_epochs_hold(e);
}

/* how: enum guard_way, and the packet's direction in e << 1.
 * Not static, so that it is verified once and not anew for every way that leads here. */
__noinline int guard_slow(struct __sk_buff *skb, struct packet *p, struct ct_entry *e, int how)
{
	int way = how & 1, d = how >> 1 & 1, cause = 0, masqueraded = 0;
	const struct ipcache_entry *own, *other;
	struct judgement *j;
	struct scratch *s;
	__u32 zero = 0;

	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s || !p)
		return TC_ACT_UNSPEC;
	j = &s->judgement;
	s->meant.service = 0;
	if (e && e->out_kind[0] == OUT_STACK) {
		if (ct_expired(e))
			cause = END_EXPIRED;
		else if (is_opening(p, d) && (e->state != CT_OPENING || d))
			cause = END_REOPENED;
		else
			return guard_known(skb, p, e, d, j);
	} else {
		e = NULL;
	}
	look_at_ends(j, p);
	own = way == GUARD_OUT ? &j->from : &j->to;
	other = way == GUARD_OUT ? &j->to : &j->from;
	if (!(own->flags & IPCACHE_THIS_NODE))
		return TC_ACT_UNSPEC;
	if (way == GUARD_OUT) {
		masqueraded = skb->ingress_ifindex != 0;
		if (other->flags & IPCACHE_THIS_NODE)
			return TC_ACT_UNSPEC;
	} else if (host_firewall == HOST_FIREWALL_ENFORCE && ((other->flags & IPCACHE_THIS_NODE) || other->ifindex)) {
		/* Nobody on the network has an address of ours. */
		return guard_drop(skb, p, j, 0, other->ifindex ? DROP_INVALID_SOURCE_IP : DROP_INVALID_IDENTITY);
	}
	if (p->icmp_error && guard_error_is_related(skb, p, &s->inner))
		return TC_ACT_UNSPEC;
	if (is_icmp(p->protocol) && !icmp_is_echo(p->ipv6, p->icmp_type))
		return masqueraded ? TC_ACT_UNSPEC : guard_message(skb, p, s);
	return guard_new(skb, p, s, e, d | (masqueraded ? GUARD_MASQUERADED : 0) | (way == GUARD_OUT ? GUARD_OUTWARD : 0) | cause << 8);
}

/* Headers that cannot be read cannot be judged. Later fragments go on: without the first one, which is judged, nobody gets
 * anything of them. */
static __noinline int guard_unreadable(struct __sk_buff *skb, struct packet *p, int way, int reason)
{
	struct ipcache_entry *own;

	if (!p || host_firewall != HOST_FIREWALL_ENFORCE || reason == DROP_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND || way == GUARD_OUT)
		return TC_ACT_UNSPEC;
	own = bpf_map_lookup_elem(&ipcache, p->dst);
	if (!own || !(own->flags & IPCACHE_THIS_NODE))
		return TC_ACT_UNSPEC;
	return drop(skb, p, NULL, reason);
}

/* One packet of a device. What goes out has passed the stack, or was only forwarded. */
static __always_inline int guard(struct __sk_buff *skb, int ipv6, int way)
{
	struct ct_entry *e = NULL;
	struct packet p = {};
	int reason, d = 0, hi = 0;
	__u32 now;

	reason = ipv6 ? packet_read_ip6(skb, &p) : packet_read_ip4(skb, &p);
	if (reason)
		return guard_unreadable(skb, &p, way, reason);
	if (!p.icmp_error)
		e = ct_lookup(&p, &hi);
	if (!e)
		return guard_slow(skb, &p, NULL, way);
	d = (hi ^ e->flags) & CT_ORIGINATOR_HI;
	now = clock_ticks();
	if (way == GUARD_IN || e->out_kind[0] != OUT_STACK || !ct_epochs_hold(e) || e->verdict || now - e->last_seen > e->lifetime ||
	    now - e->next_report < 1U << 31 || is_opening(&p, d) || e->state == CT_OPENING || (p.tcp_flags & (TCP_FIN | TCP_RST)) ||
	    e->state >= CT_CLOSING)
		return guard_slow(skb, &p, e, way | d << 1);
	ct_account(skb, e, d, now);
	return TC_ACT_UNSPEC;
}

/* What comes for a service whose backend is on the node's own network: policy sees the client and the backend. */
static __noinline int guard_backend(struct __sk_buff *skb, struct packet *p, struct scratch *s, const struct backend *b, int fresh)
{
	struct judgement *j;
	int reason;

	if (!p || !s || !b || !host_firewall)
		return TC_ACT_OK;
	j = &s->judgement;
	look_at_ends(j, p);
	addr_copy_by4(j->dst, b->addr);
	j->dport = b->port;
	judge_ends(j);
	reason = judge_policy(j);
	if (reason)
		return guard_drop(skb, p, j, 0, reason);
	if (fresh && j->audited) {
		guard_begin(skb, p, &s->entry, j, 0, 0);
		ct_report(p, &s->entry, 0, EVENT_NEW, 0);
	}
	return TC_ACT_OK;
}
