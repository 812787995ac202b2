/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* No packet disappears in silence: each drop is counted by its reason, and reported within a rate per device and reason,
 * so that an attack cannot drown the other events. */
#pragma once

#include "config.h"
#include "drop_reasons.h"
#include "events.h"
#include "owners.h"
#include "packet.h"

/* In the place of a drop reason: reports that are limited in the same way. */
#define REPORTS_OF_ERRORS 256

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

/* What else is known about a dropped packet; all may be 0. Who knows nothing of it gives NULL. */
struct drop_context {
	__u32 identity[2];
	__u32 cookie[2];
	__u32 service;
	__u8 direction;
	__u8 flags;
};

/* Counts the drop, reports it within the rate, and returns the verdict for the hook. */
__noinline int drop(struct __sk_buff *skb, const struct packet *p, const struct drop_context *c, __u32 reason)
{
	__u32 suppressed = 0, zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct event *ev;

	if (!p || !s)
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
	ev->ifindex = skb->ifindex;
	ev->suppressed = suppressed;
	ev->type = EVENT_DROP;
	ev->reason = reason;
	ev->flags = p->ipv6 ? EVENT_IPV6 : 0;
	if (c) {
		ev->identity[0] = c->identity[0];
		ev->identity[1] = c->identity[1];
		ev->cookie[0] = c->cookie[0];
		ev->cookie[1] = c->cookie[1];
		ev->service = c->service;
		ev->direction = c->direction;
		ev->flags |= c->flags;
	}
	name_owners(ev, &s->socket_key, &s->address);
	event_submit(ev);
	return 2;
}
