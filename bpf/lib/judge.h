/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The packet's walk, the same on every hook: find the connection; if it is known and nothing changed, send the packet
 * on; else find out who both ends are, whether the sender may be who it says, and what policy says, and remember it. */
#pragma once

#include "conntrack.h"
#include "deliver.h"
#include "direct.h"
#include "dns.h"
#include "drop.h"
#include "events.h"
#include "icmp_error.h"
#include "nat.h"
#include "ndp.h"
#include "packet.h"
#include "policy.h"
#include "refuse.h"
#include "sender.h"
#include "translate.h"

static __always_inline void set_way(struct ct_entry *e, const struct ipcache_entry *end, int towards, __u32 seen_ifindex)
{
	int from = towards ^ 1;

	if (end->ifindex) {
		e->out_kind[towards] = OUT_POD;
		e->out_ifindex[towards] = end->ifindex;
		e->in_ifindex[from] = end->ifindex;
	} else if (end->flags & IPCACHE_THIS_NODE) {
		e->out_kind[towards] = OUT_THIS_NODE;
		e->out_ifindex[towards] = host_ifindex;
		e->in_ifindex[from] = net_ifindex;
	} else {
		e->out_kind[towards] = OUT_UNKNOWN;
		e->in_ifindex[from] = seen_ifindex;
	}
}

/* Puts a verdict into an entry, all but the epochs. */
static __always_inline void remember_verdict(struct ct_entry *e, const struct judgement *j, int reason)
{
	e->epoch_slot[0] = j->epoch_slot[0];
	e->epoch_slot[1] = j->epoch_slot[1];
	e->identity[0] = j->from.identity;
	e->identity[1] = j->to.identity;
	e->cookie[0] = j->cookie[0];
	e->cookie[1] = j->cookie[1];
	e->verdict = reason;
	e->denied_direction = j->direction;
	e->audited = j->audited;
	e->flags = (e->flags & ~(CT_STAGED_EGRESS_DENY | CT_STAGED_INGRESS_DENY)) | j->staged;
}

/* Two CPUs may judge one connection at a time. The epochs come last and in one piece, and those of a deny never hold:
 * whoever writes last, no denied connection is left with epochs by which it may go on. */
static __always_inline void remember_epochs(struct ct_entry *e, const struct judgement *j, int reason)
{
	union {
		__u32 half[2];
		__u64 both;
	} epochs;

	epochs.half[0] = j->epoch[0] ^ (reason ? 1U << 31 : 0);
	epochs.half[1] = j->epoch[1];
	asm volatile("" ::: "memory");
	*(volatile __u64 *)e->epoch = epochs.both;
}

/* The same, and the ways to both ends. d: direction of the packet at hand. */
static __always_inline void remember(struct __sk_buff *skb, struct ct_entry *e, const struct judgement *j, int d, int reason)
{
	remember_verdict(e, j, reason);
	set_way(e, &j->to, 0, d == 1 ? skb->ifindex : 0);
	set_way(e, &j->from, 1, d == 0 ? skb->ifindex : 0);
	remember_epochs(e, j, reason);
}

static __always_inline void drop_context_of(struct drop_context *c, const struct judgement *j, int d)
{
	c->identity[0] = j->from.identity;
	c->identity[1] = j->to.identity;
	c->cookie[0] = j->cookie[0];
	c->cookie[1] = j->cookie[1];
	c->direction = j->direction;
	c->flags = d ? EVENT_REPLY_PACKET : 0;
}

/* A drop is reported with the connection's ends, whichever way the packet went. */
static __always_inline int drop_judged(struct __sk_buff *skb, struct packet *p, const struct judgement *j, int d, int reason)
{
	struct drop_context c = {};

	drop_context_of(&c, j, d);
	addr_copy(p->src, j->src);
	addr_copy(p->dst, j->dst);
	p->sport = j->sport;
	p->dport = j->protocol == IPPROTO_ICMP || j->protocol == IPPROTO_ICMPV6 ? p->dport : j->dport;
	return drop(skb, p, &c, reason);
}

/* A packet of the originator's that policy denies: in silence, or with an answer where the operator wants one. */
static __noinline int deny(struct __sk_buff *skb, struct packet *p, struct scratch *s, int reason)
{
	struct judgement *j;
	struct lb_config *config;
	__u32 zero = 0;
	int act;

	if (!p || !s)
		return TC_ACT_SHOT;
	j = &s->judgement;
	act = drop_judged(skb, p, j, 0, reason);
	config = bpf_map_lookup_elem(&lb_config, &zero);
	if (reason != DROP_POLICY_DENIED || !config || !(config->flags & LB_DENY_ICMP))
		return act;
	/* The sender knows the frontend: the answer speaks of it. */
	if (s->meant.service && nat_rewrite(skb, p, END_DST, s->meant.addr, s->meant.port))
		return act;
	return refuse_denied(skb, p);
}

/* A packet of a connection that policy let begin and now denies. */
static __noinline int answer_cut(struct __sk_buff *skb, const struct packet *p, const struct ct_entry *e, int d)
{
	struct lb_config *config;
	__u32 zero = 0;

	config = bpf_map_lookup_elem(&lb_config, &zero);
	if (!p || !e || !config || !(config->flags & LB_DENY_ICMP) || (e->flags & CT_HAIRPIN))
		return TC_ACT_SHOT;
	/* The originator knows the frontend. */
	if (!d && (e->flags & CT_SERVICE) && nat_rewrite(skb, p, END_DST, e->frontend, e->frontend_port))
		return TC_ACT_SHOT;
	return refuse_denied(skb, p);
}

/* Policy sees ICMP by its type, where other protocols have the port. */
static __always_inline __be16 policy_port_of(const struct packet *p, __u8 icmp_type, __be16 port)
{
	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6)
		return bpf_htons(icmp_type);
	return port;
}

static __always_inline int unreachable_from_pod(const struct packet *p)
{
	const __u32 *w = (const __u32 *)p->dst;

	if (p->ipv6)
		return p->dst[0] == 0xff || (p->dst[0] == 0xfe && (p->dst[1] & 0xc0) == 0x80) || !(w[0] | w[1] | w[2] | w[3]);
	return (p->dst[12] & 0xf0) == 0xe0 || w[3] == 0xffffffff || !w[3];
}

/* A known connection whose verdict, sender or way has to be looked at again. */
__noinline int known_connection(struct __sk_buff *skb, struct packet *p, struct ct_entry *e, int dh, struct judgement *j)
{
	int d = dh & 1, hook = dh >> 1, reason, act;
	struct drop_context c = {};
	int over = 0;

	if (!p || !e || !j)
		return TC_ACT_SHOT;
	if (e->in_ifindex[d] != skb->ifindex || !ct_epochs_hold(e)) {
		addr_copy(j->src, d ? p->dst : p->src);
		addr_copy(j->dst, d ? p->src : p->dst);
		j->sport = d ? p->dport : p->sport;
		j->dport = policy_port_of(p, e->icmp_type, d ? p->sport : p->dport);
		j->protocol = p->protocol;
		judge_ends(j);
		if (e->flags & CT_HAIRPIN)
			j->from = j->to;
		reason = check_sender(skb, d ? &j->to : &j->from, d ? &j->from : &j->to, hook);
		if (reason == NOT_OURS)
			return TC_ACT_UNSPEC;
		if (reason) { /* somebody else with a known connection's addresses: the entry is not his to change */
			c.flags = d ? EVENT_REPLY_PACKET : 0;
			return drop(skb, p, &c, reason);
		}
		count(COUNTER_REJUDGED);
		reason = e->flags & CT_HAIRPIN ? 0 : judge_policy(j);
		remember(skb, e, j, d, reason);
		if (reason) {
			act = drop_judged(skb, p, j, d, reason);
			return reason == DROP_POLICY_DENIED ? answer_cut(skb, p, e, d) : act;
		}
	}
	if (e->verdict) {
		c.identity[0] = e->identity[0];
		c.identity[1] = e->identity[1];
		c.cookie[0] = e->cookie[0];
		c.cookie[1] = e->cookie[1];
		c.direction = e->denied_direction;
		c.flags = d ? EVENT_REPLY_PACKET : 0;
		if (d) {
			__be16 port = p->sport;
			__u8 addr[16] __attribute__((aligned(8)));

			addr_copy(addr, p->src);
			addr_copy(p->src, p->dst);
			addr_copy(p->dst, addr);
			p->sport = p->dport;
			p->dport = port;
		}
		act = drop(skb, p, &c, e->verdict);
		return e->verdict == DROP_POLICY_DENIED ? answer_cut(skb, p, e, d) : act;
	}
	if (e->out_kind[d] == OUT_UNKNOWN) {
		reason = resolve(skb, e, p->src, p->dst, d);
		if (reason)
			return drop(skb, p, &c, reason);
	}
	if (d && e->state == CT_OPENING)
		ct_set_state(e, p->protocol, CT_OPEN);
	e->tcp_flags[d] |= p->tcp_flags;
	ct_account(skb, e, d, clock_ticks());
	if (p->protocol == IPPROTO_TCP && ((p->tcp_flags & (TCP_FIN | TCP_RST)) || e->state >= CT_CLOSING)) {
		over = ct_tcp_close(e, p, d);
		if (over) {
			ct_report(p, e, d, EVENT_END, over);
			count(COUNTER_CT_ENDED);
		}
	}
	if ((e->flags & CT_SERVICE) && d) {
		reason = answer(skb, p, e);
		if (reason)
			return drop(skb, p, &c, reason);
	}
	count(COUNTER_FORWARDED);
	act = forward(skb, e, d);
	if (over == END_CLOSED)
		ct_delete(p);
	if (is_dns(p) && act >= 0)
		dns_report(skb, p);
	return act < 0 ? drop(skb, p, &c, -act) : act;
}

/* What only the start of a connection has: a SYN, or the echo request of the end that so far answered. */
static __always_inline int is_opening(const struct packet *p, int d)
{
	if (p->protocol == IPPROTO_TCP)
		return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	return d && p->icmp_type == (p->ipv6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO);
}

/* new_connection() answers this minus the reason where deny() is to follow: called from there, the stack would not do for what
 * deny() does. */
#define DENIED -1000

/* No entry, or one that is over (old, with the cause of its end): judges the packet as the start of a connection. The old
 * entry goes when the new one takes its place: who may not begin a connection does not end another either.
 * s->judgement knows both ends, s->meant the frontend that was meant.
 * A TCP segment without SYN that has no entry (the table forgot it, or Weir came later) is judged as its sender's
 * connection and, when that is denied, as the reply to its receiver's. A reset of this kind makes no entry. */
__noinline int new_connection(struct __sk_buff *skb, struct packet *p, int how, struct scratch *s, struct ct_entry *old)
{
	int reason, act, d = 0, midstream, hook = (how & 0xff) >> 1;
	struct drop_context c = {};
	struct judgement *j;
	struct ct_entry *e;

	if (!p || !s)
		return TC_ACT_SHOT;
	j = &s->judgement;
	e = &s->entry;
	c.service = s->meant.service;
	if (s->meant.hairpin)
		j->from = j->to;
	reason = check_sender(skb, &j->from, &j->to, hook);
	if (reason == NOT_OURS)
		return TC_ACT_UNSPEC;
	if (reason) {
		c.identity[1] = j->to.identity;
		return drop(skb, p, &c, reason);
	}
	if (hook == HOOK_POD && unreachable_from_pod(p)) {
		c.identity[0] = j->from.identity;
		return drop(skb, p, &c, DROP_UNKNOWN_L3_TARGET_ADDRESS);
	}
	count(COUNTER_JUDGED);
	midstream = p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN;
	reason = s->meant.hairpin ? 0 : judge_policy(j);
	if (reason && midstream) {
		judge_swap(j);
		if (judge_policy(j)) {
			judge_swap(j);
			judge_policy(j);
		} else {
			reason = 0;
			d = 1;
		}
	}
	if (reason)
		return DENIED - reason;

	__builtin_memset(e, 0, sizeof(*e));
	e->flags = (p->ipv6 ? CT_IPV6 : 0) | (midstream ? CT_MIDSTREAM : 0) | (ct_source_is_hi(p) != d ? CT_ORIGINATOR_HI : 0);
	if (s->meant.service) {
		e->flags |= CT_SERVICE | (s->meant.hairpin ? CT_HAIRPIN : 0);
		e->service = s->meant.service;
		e->frontend_port = s->meant.port;
		addr_copy(e->frontend, s->meant.addr);
	}
	remember(skb, e, j, d, 0);
	e->last_seen = clock_ticks();
	e->next_report = e->last_seen + report_interval_ticks;
	e->created_ns = bpf_ktime_get_ns();
	e->icmp_type = p->icmp_type;
	e->icmp_code = p->icmp_code;
	e->tcp_flags[d] = p->tcp_flags;
	ct_set_state(e, p->protocol, CT_OPENING);
	ct_account(skb, e, d, e->last_seen);
	if (e->out_kind[d] == OUT_UNKNOWN) {
		reason = resolve(skb, e, p->src, p->dst, d);
		if (reason) {
			j->direction = 0;
			return drop_judged(skb, p, j, d, reason);
		}
	}
	if (!(midstream && (p->tcp_flags & TCP_RST))) {
		if (midstream && (p->tcp_flags & TCP_FIN))
			ct_set_state(e, p->protocol, CT_CLOSING);
		/* A reset was reported when it was seen. */
		if (old && old->state != CT_CLOSED) {
			ct_report(p, old, how & 1, EVENT_END, how >> 8);
			count(COUNTER_CT_ENDED);
		}
		if (ct_insert(p)) {
			count(COUNTER_CT_FAILED);
			return drop_judged(skb, p, j, d, DROP_CT_MAP_INSERTION_FAILED);
		}
		count(COUNTER_CT_CREATED);
		ct_report(p, e, d, EVENT_NEW, 0);
	}
	act = forward(skb, e, d);
	if (is_dns(p) && act >= 0)
		dns_report(skb, p);
	return act < 0 ? drop_judged(skb, p, j, d, -act) : act;
}

static __always_inline void look_at_ends(struct judgement *j, const struct packet *p)
{
	addr_copy(j->src, p->src);
	addr_copy(j->dst, p->dst);
	j->sport = p->sport;
	j->dport = policy_port_of(p, p->icmp_type, p->dport);
	j->protocol = p->protocol;
	j->direction = 0;
	judge_ends(j);
}

/* What consult_services() answers beside a hook's verdict. */
#define GO_ON -100	/* the packet is as it was */
#define GO_TO_BACKEND -101 /* it goes to somebody else now */

/* Asks whether a packet without a connection is for a service, and sees to it. */
static __noinline int consult_services(struct __sk_buff *skb, struct packet *p, int hook, struct scratch *s)
{
	struct drop_context c = {};
	struct judgement *j;
	int r;

	if (!p || !s)
		return GO_ON;
	j = &s->judgement;
	if (j->to.ifindex) {
		if (hook != HOOK_DEVICE || p->l4_off == (p->ipv6 ? 54 : 34))
			return GO_ON;
		r = read_direct(skb, p, &s->meant);
		return r ? drop(skb, p, &c, r) : GO_ON;
	}
	if (hook == HOOK_NODE || j->to.identity >= IDENTITY_FIRST_POD)
		return GO_ON;
	/* Who lies about its address is dropped further on, and must not leave a flow or an affinity in another's name. */
	if (hook == HOOK_POD ? j->from.ifindex != skb->ifindex : j->from.ifindex || (j->from.flags & IPCACHE_THIS_NODE))
		return GO_ON;
	r = translate(skb, p, hook);
	if (r == FOR_BALANCER)
		return TC_ACT_UNSPEC;
	if (r >= 0)
		return r == TRANSLATED ? GO_TO_BACKEND : GO_ON;
	c.service = s->meant.service;
	c.identity[0] = j->from.identity;
	drop(skb, p, &c, -r);
	if (-r == DROP_SERVICE_BACKEND_NOT_FOUND)
		return refuse_packet(skb, p, REFUSE_PORT, 0);
	return TC_ACT_SHOT;
}

/* Everything but a packet of a known connection of which nothing changed. */
static __noinline int slow_path(struct __sk_buff *skb, struct packet *p, struct ct_entry *e, int dh)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	int cause = 0, hook = dh >> 1, r, hi = 0;

	if (!s || !p)
		return TC_ACT_SHOT;
	if (p->icmp_error)
		return icmp_error(skb, p, hook);
	s->meant.service = 0;
	s->meant.hairpin = 0;
	/* The node's own with another machine is the firewall's matter; what begins anew may be for a service meanwhile. */
	if (hook == HOOK_DEVICE && e && e->out_kind[0] == OUT_STACK) {
		if (!ct_expired(e) && !is_opening(p, dh & 1))
			return TC_ACT_UNSPEC;
		e = NULL;
	}
	if (!e) {
		look_at_ends(&s->judgement, p);
		/* Nodes put packets for backends into others; what pods put into others is theirs, and judged like anything. */
		if (hook == HOOK_DEVICE && s->judgement.to.ifindex && !is_pod(s->judgement.from.identity) &&
		    p->protocol == (p->ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP)) {
			r = unpack(skb, p, s);
			return r < 0 ? drop(skb, p, NULL, -r) : r;
		}
		r = consult_services(skb, p, hook, s);
		if (r != GO_ON && r != GO_TO_BACKEND)
			return r;
		if (r == GO_TO_BACKEND) {
			e = ct_find(p, &hi);
			if (e)
				dh = hook << 1 | ((hi ^ e->flags) & CT_ORIGINATOR_HI);
			else
				look_at_ends(&s->judgement, p);
		}
	}
	if (e) {
		if (ct_expired(e))
			cause = END_EXPIRED;
		else if (is_opening(p, dh & 1) && (e->state != CT_OPENING || (dh & 1)))
			cause = END_REOPENED;
		if (!cause)
			return known_connection(skb, p, e, dh, &s->judgement);
		look_at_ends(&s->judgement, p);
		/* What begins anew behind an old entry may name its frontend as well. */
		if (hook == HOOK_DEVICE && !s->meant.service && s->judgement.to.ifindex && p->l4_off != (p->ipv6 ? 54 : 34)) {
			r = read_direct(skb, p, &s->meant);
			if (r)
				return drop(skb, p, NULL, r);
		}
	}
	r = new_connection(skb, p, dh | cause << 8, s, e);
	return r <= DENIED ? deny(skb, p, s, DENIED - r) : r;
}

/* One packet, from any hook. ipv6 and hook are constants where it is called. */
static __always_inline int handle(struct __sk_buff *skb, int ipv6, int hook)
{
	struct packet p = {};
	struct ct_entry *e;
	int reason, act, d, hi = 0;
	__u32 now;

	reason = ipv6 ? packet_read_ip6(skb, &p) : packet_read_ip4(skb, &p);
	if (reason) {
		if (hook == HOOK_DEVICE) {
			/* Not readable, and maybe not for a pod: then it is the node's to refuse. */
			struct ipcache_entry *to = bpf_map_lookup_elem(&ipcache, p.dst);

			if (!to || !to->ifindex)
				return TC_ACT_UNSPEC;
		}
		return drop(skb, &p, NULL, reason);
	}
	if (ipv6 && hook == HOOK_POD && is_ndp(&p))
		return answer_ndp(skb, &p);
	if (p.icmp_error)
		return slow_path(skb, &p, NULL, hook << 1);
	e = ct_lookup(&p, &hi);
	if (!e)
		return slow_path(skb, &p, NULL, hook << 1);
	d = (hi ^ e->flags) & CT_ORIGINATOR_HI;
	now = clock_ticks();
	if (e->in_ifindex[d] != skb->ifindex || !ct_epochs_hold(e) || e->verdict || e->out_kind[d] == OUT_UNKNOWN ||
	    now - e->last_seen > e->lifetime)
		return slow_path(skb, &p, e, hook << 1 | d);
	if (is_opening(&p, d))
		return slow_path(skb, &p, e, hook << 1 | d);

	ct_account(skb, e, d, now);
	if (d && e->state == CT_OPENING)
		ct_set_state(e, p.protocol, CT_OPEN);
	if ((e->flags & CT_SERVICE) && d) {
		reason = answer(skb, &p, e);
		if (reason)
			return drop(skb, &p, NULL, reason);
	}
	act = forward(skb, e, d);
	if (act < 0)
		return drop(skb, &p, NULL, -act);
	if (is_dns(&p))
		dns_report(skb, &p);
	if (p.protocol == IPPROTO_TCP) {
		if ((e->tcp_flags[d] | p.tcp_flags) != e->tcp_flags[d])
			e->tcp_flags[d] |= p.tcp_flags;
		if ((p.tcp_flags & (TCP_FIN | TCP_RST)) || e->state == CT_CLOSING) {
			reason = ct_tcp_close(e, &p, d);
			if (reason) {
				ct_report(&p, e, d, EVENT_END, reason);
				count(COUNTER_CT_ENDED);
				if (reason == END_CLOSED)
					ct_delete(&p);
				return act;
			}
		}
	}
	if ((__s32)(now - e->next_report) >= 0) {
		e->next_report = now + report_interval_ticks;
		ct_report(&p, e, d, EVENT_ACTIVE, 0);
	}
	return act;
}
