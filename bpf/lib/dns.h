/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copies messages of DNS that were let through to the agent, which reads them: what name was asked for, and what came. */
#pragma once

#include <linux/in.h>

#include "addr.h"
#include "datapath_maps.h"
#include "events.h"
#include "packet.h"

#define PORT_DNS bpf_htons(53)
#define UDP_HEADER 8

/* Bytes that may wait in the ring of events while messages of DNS are added to it: a quarter of it. */
#define DNS_RING_SHARE (1024 * 1024)

/* On a stream two bytes say how long a message is: what has no more tells nothing. */
static __always_inline int is_dns(const struct packet *p)
{
	return (p->dport == PORT_DNS || p->sport == PORT_DNS) &&
	       (p->protocol == IPPROTO_UDP || (p->protocol == IPPROTO_TCP && p->payload_len > 2));
}

/* The packet may be translated already, p not: what is told has the real ends, as flows do. */
__noinline int dns_report(struct __sk_buff *skb, const struct packet *p)
{
	struct dns_event *ev;
	__u32 at, len, take;

	if (!p || p->later_fragment)
		return 0;
	if (p->protocol == IPPROTO_TCP) {
		__u8 offset;

		if (bpf_skb_load_bytes(skb, p->l4_off + 12, &offset, 1))
			return 0;
		at = p->l4_off + (offset >> 4) * 4;
		len = p->payload_len;
	} else {
		at = p->l4_off + UDP_HEADER;
		if (skb->len <= at)
			return 0;
		len = skb->len - at;
	}
	/* Whoever floods with messages does not take the room of everything else. */
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > DNS_RING_SHARE) {
		count(COUNTER_DNS_LOST);
		return 0;
	}
	ev = bpf_ringbuf_reserve(&events, sizeof(*ev), 0);
	if (!ev) {
		count(COUNTER_DNS_LOST);
		return 0;
	}
	/* The compiler knows the bounds, the verifier has to see them. That it is not 0 is no bound to verifiers before 6.8: one
	 * less is compared, and the one is added afterwards. */
	take = len - 1;
	asm volatile("" : "+r"(take));
	if (take > DNS_PAYLOAD_MAX - 1)
		take = DNS_PAYLOAD_MAX - 1;
	asm volatile("" : "+r"(take));
	take++;
	if (bpf_skb_load_bytes(skb, at, ev->payload, take)) {
		bpf_ringbuf_discard(ev, BPF_RB_NO_WAKEUP);
		count(COUNTER_DNS_LOST);
		return 0;
	}
	ev->time_ns = bpf_ktime_get_ns();
	addr_copy(ev->src, p->src);
	addr_copy(ev->dst, p->dst);
	ev->sport = p->sport;
	ev->dport = p->dport;
	ev->len = len;
	ev->type = EVENT_DNS;
	ev->protocol = p->protocol;
	__builtin_memset(ev->pad, 0, sizeof(ev->pad));
	count(COUNTER_EVENTS);
	bpf_ringbuf_submit(ev, BPF_RB_NO_WAKEUP);
	return 0;
}
