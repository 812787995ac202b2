/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors: messages that carry the header of the packet they complain of. */
#pragma once

#include "conntrack.h"
#include "deliver.h"
#include "drop.h"
#include "policy.h"
#include "sender.h"
#include "translate.h"

/* Fills inner from the header that follows the message's. Returns 0 or the reason to drop. */
static __always_inline int read_inner(struct __sk_buff *skb, const struct packet *p, struct packet *inner)
{
	__u32 off = p->l4_off + 8;
	__be16 ports[4];

	__builtin_memset(inner, 0, sizeof(*inner));
	inner->ipv6 = p->ipv6;
	if (p->ipv6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0)
			return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		addr_copy_by4(inner->src, (const __u8 *)&ip.saddr);
		addr_copy_by4(inner->dst, (const __u8 *)&ip.daddr);
		inner->protocol = ip.nexthdr;
		off += sizeof(ip);
		if (inner->protocol == NEXT_FRAGMENT) { /* of a datagram sent in fragments */
			__u8 next;

			if (bpf_skb_load_bytes(skb, off, &next, 1) < 0)
				return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
			inner->protocol = next;
			off += 8;
		}
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0 || ip.ihl < 5)
			return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		addr_from_ip4(inner->src, ip.saddr);
		addr_from_ip4(inner->dst, ip.daddr);
		inner->protocol = ip.protocol;
		off += ip.ihl * 4;
	}
	inner->l4_off = off;
	if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports)) < 0)
		return DROP_CT_TRUNCATED_OR_INVALID_HEADER;
	if (inner->protocol == IPPROTO_ICMP || inner->protocol == IPPROTO_ICMPV6) {
		inner->sport = inner->dport = ports[2];
	} else if (inner->protocol == IPPROTO_TCP || inner->protocol == IPPROTO_UDP || inner->protocol == PROTO_SCTP ||
		   inner->protocol == IPPROTO_UDPLITE || inner->protocol == IPPROTO_DCCP) {
		inner->sport = ports[0];
		inner->dport = ports[1];
	}
	return 0;
}

/* Tells of an error that was let through: it explains what its receiver's connections suffer from. */
static __noinline void report_error(struct __sk_buff *skb, const struct packet *p, const struct judgement *j)
{
	__u32 suppressed = 0;
	struct event *ev;

	if (!drop_may_report(skb->ifindex, REPORTS_OF_ERRORS, &suppressed)) {
		count(COUNTER_DROPS_UNREPORTED);
		return;
	}
	ev = event_reserve();
	if (!ev)
		return;
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->time_ns = bpf_ktime_get_ns();
	ev->bytes[0] = skb->len;
	ev->packets[0] = 1;
	addr_copy(ev->src, p->src);
	addr_copy(ev->dst, p->dst);
	ev->protocol = p->protocol;
	ev->icmp_type = p->icmp_type;
	ev->icmp_code = p->icmp_code;
	ev->ifindex = skb->ifindex;
	ev->suppressed = suppressed;
	ev->identity[0] = j->from.identity;
	ev->identity[1] = j->to.identity;
	ev->type = EVENT_ICMP_ERROR;
	ev->flags = p->ipv6 ? EVENT_IPV6 : 0;
	event_submit(ev);
}

/* An ICMP error goes to the sender of the packet it speaks of, if that packet's connection is known and allowed. */
__noinline int icmp_error(struct __sk_buff *skb, struct packet *p, int hook)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct packet *inner;
	struct judgement *j;
	struct ct_entry *e;
	int reason, act, hi = 0, d;

	if (!p || !s)
		return TC_ACT_SHOT;
	j = &s->judgement;
	inner = &s->inner;
	addr_copy(j->src, p->src);
	addr_copy(j->dst, p->dst);
	judge_ends(j);
	reason = read_inner(skb, p, inner);
	if (reason)
		return hook == HOOK_DEVICE && !j->to.ifindex ? TC_ACT_UNSPEC : drop(skb, p, NULL, reason);
	if (!j->to.ifindex && translate_error(skb, p, inner, s)) {
		addr_copy(j->dst, p->dst);
		judge_ends(j);
	}
	reason = check_sender(skb, &j->from, &j->to, hook);
	if (reason == NOT_OURS)
		return TC_ACT_UNSPEC;
	if (reason)
		return drop(skb, p, NULL, reason);
	e = addr_equal(inner->src, p->dst) ? ct_lookup(inner, &hi) : NULL;
	/* A pod is no router: it has nothing to say about the connections of others. */
	if (!e || ct_expired(e) || (hook == HOOK_POD && !addr_equal(inner->dst, p->src)))
		return drop(skb, p, NULL, DROP_ICMP_ERROR_UNRELATED);
	if (e->verdict || !ct_epochs_hold(e))
		return drop(skb, p, NULL, e->verdict ? e->verdict : DROP_ICMP_ERROR_UNRELATED);
	d = ((hi ^ e->flags) & CT_ORIGINATOR_HI) ^ 1; /* against the packet it speaks of */
	if (e->out_kind[d] == OUT_UNKNOWN) {
		reason = resolve(skb, e, p->src, p->dst, d);
		if (reason)
			return drop(skb, p, NULL, reason);
	}
	if ((e->flags & CT_SERVICE) && d) {
		reason = answer_error(skb, p, inner, e);
		if (reason)
			return drop(skb, p, NULL, reason);
	}
	count(COUNTER_FORWARDED);
	act = forward(skb, e, d);
	if (act < 0)
		return drop(skb, p, NULL, -act);
	report_error(skb, p, j);
	return act;
}
