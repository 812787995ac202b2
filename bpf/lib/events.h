/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the datapath tells the agent, and what it counts. Records go into the ring without waking the reader: a wake-up
 * per event costs more than the connection itself. */
#pragma once

#include "clock.h"
#include "config.h"
#include "datapath_maps.h"
#include "drop_reasons.h"
#include "packet.h"

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		*n += 1; /* per CPU */
}

static __always_inline struct event *event_reserve(void)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	count(e ? COUNTER_EVENTS : COUNTER_EVENTS_LOST);
	return e;
}

static __always_inline void event_submit(struct event *e)
{
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* Fills what an entry knows. The addresses and ports are the caller's, since only the key has them. */
static __always_inline void event_from_entry(struct event *ev, const struct ct_entry *e, __u8 type, __u8 reason)
{
	ev->time_ns = bpf_ktime_get_ns();
	ev->bytes[0] = e->bytes[0];
	ev->bytes[1] = e->bytes[1];
	ev->packets[0] = e->packets[0];
	ev->packets[1] = e->packets[1];
	ev->created_ns = e->created_ns;
	ev->identity[0] = e->identity[0];
	ev->identity[1] = e->identity[1];
	ev->cookie[0] = e->cookie[0];
	ev->cookie[1] = e->cookie[1];
	ev->ifindex = e->in_ifindex[0];
	ev->suppressed = 0;
	ev->type = type;
	ev->reason = reason;
	ev->direction = 0;
	ev->flags = (e->flags & CT_IPV6 ? EVENT_IPV6 : 0) | (e->state != CT_OPENING ? EVENT_REPLIED : 0) |
		    (e->flags & CT_MIDSTREAM ? EVENT_MIDSTREAM : 0) |
		    (e->flags & (CT_STAGED_EGRESS_DENY | CT_STAGED_INGRESS_DENY));
	ev->tcp_flags[0] = e->tcp_flags[0];
	ev->tcp_flags[1] = e->tcp_flags[1];
	ev->icmp_type = e->icmp_type;
	ev->icmp_code = e->icmp_code;
	__builtin_memset(ev->pad, 0, sizeof(ev->pad));
}

/* May this drop be reported? The count of those that were not since the last report comes back in *suppressed. */
static __always_inline int drop_may_report(__u32 ifindex, __u32 reason, __u32 *suppressed)
{
	struct drop_limit_key k = { .ifindex = ifindex, .reason = reason };
	struct drop_limit *l = bpf_map_lookup_elem(&drop_limits, &k);
	__u32 window = clock_ticks() >> 10;

	if (!l) {
		struct drop_limit first = { .window = window, .reported = 1 };

		bpf_map_update_elem(&drop_limits, &k, &first, BPF_ANY);
		return 1;
	}
	if (l->window != window) {
		l->window = window;
		l->reported = 0;
		*suppressed = l->suppressed;
		l->suppressed = 0;
	}
	if (__sync_fetch_and_add(&l->reported, 1) < drop_reports_per_second)
		return 1;
	__sync_fetch_and_add(&l->suppressed, 1);
	return 0;
}

static __always_inline void drop_count_packet(struct __sk_buff *skb, __u32 reason)
{
	struct drop_count *c = bpf_map_lookup_elem(&drops, &reason);

	if (c) {
		c->packets += skb->gso_segs > 1 ? skb->gso_segs : 1;
		c->bytes += skb->len;
	}
}

/* What else is known about a dropped packet; all may be 0. */
struct drop_context {
	__u32 identity[2];
	__u32 cookie[2];
	__u8 direction;
	__u8 flags;
};

/* Counts the drop, reports it within the rate, and returns the verdict for the hook. */
static __noinline int drop(struct __sk_buff *skb, const struct packet *p, const struct drop_context *c, __u32 reason)
{
	__u32 suppressed = 0;
	struct event *ev;

	if (!p || !c)
		return 2; /* TC_ACT_SHOT */
	drop_count_packet(skb, reason);
	if (!drop_may_report(skb->ifindex, reason, &suppressed)) {
		count(COUNTER_DROPS_UNREPORTED);
		return 2;
	}
	ev = event_reserve();
	if (!ev)
		return 2;
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->time_ns = bpf_ktime_get_ns();
	ev->bytes[0] = skb->len;
	ev->packets[0] = skb->gso_segs > 1 ? skb->gso_segs : 1;
	addr_copy(ev->src, p->src);
	addr_copy(ev->dst, p->dst);
	ev->sport = p->sport;
	ev->dport = p->dport;
	ev->protocol = p->protocol;
	ev->tcp_flags[0] = p->tcp_flags;
	ev->icmp_type = p->icmp_type;
	ev->icmp_code = p->icmp_code;
	ev->identity[0] = c->identity[0];
	ev->identity[1] = c->identity[1];
	ev->cookie[0] = c->cookie[0];
	ev->cookie[1] = c->cookie[1];
	ev->ifindex = skb->ifindex;
	ev->suppressed = suppressed;
	ev->type = EVENT_DROP;
	ev->reason = reason;
	ev->direction = c->direction;
	ev->flags = c->flags | (p->ipv6 ? EVENT_IPV6 : 0);
	event_submit(ev);
	return 2;
}
