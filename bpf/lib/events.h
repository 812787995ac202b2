/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the datapath tells the agent, and what it counts. Records go into the ring without waking the reader: a wake-up
 * per event costs more than the connection itself. */
#pragma once

#include "clock.h"
#include "config.h"
#include "datapath_maps.h"

/* Programs that run in a system call, and not on a packet's way, say so with IN_SYSTEM_CALL before they include this. */
static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (!n)
		return;
#ifdef IN_SYSTEM_CALL
	/* A packet may come between reading and writing, and what it counts would be written over. */
	__sync_fetch_and_add(n, 1);
#else
	*n += 1; /* per CPU */
#endif
}

/* Room for an event; NULL, which is counted, when there is none. What there is is counted with event_submit(): counting
 * here makes the compiler ask for NULL twice, and verifiers before 6.3 take the second time for a lost reference. */
static __always_inline struct event *event_reserve(void)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		count(COUNTER_EVENTS_LOST);
	return e;
}

static __always_inline void event_submit(struct event *e)
{
	count(COUNTER_EVENTS);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* Fills what an entry knows. The addresses and ports are the caller's, since only the key has them. */
static __always_inline void event_from_entry(struct event *ev, const struct ct_entry *e, __u8 type, __u8 reason)
{
	ev->time_ns = type == EVENT_NEW ? e->created_ns : bpf_ktime_get_ns();
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
	ev->service = e->service;
	ev->type = type;
	ev->reason = reason;
	ev->direction = type == EVENT_END ? e->fin_acked / CT_CLOSED_FIRST : 0;
	__builtin_memset(ev->who, 0, sizeof(ev->who));
	ev->flags = (e->flags & CT_IPV6 ? EVENT_IPV6 : 0) | (e->state != CT_OPENING ? EVENT_REPLIED : 0) |
		    (e->flags & CT_MIDSTREAM ? EVENT_MIDSTREAM : 0) |
		    (e->flags & (CT_STAGED_EGRESS_DENY | CT_STAGED_INGRESS_DENY)) |
		    (e->audited & DIRECTION_INGRESS ? EVENT_AUDITED_INGRESS : 0) |
		    (e->audited & DIRECTION_EGRESS ? EVENT_AUDITED_EGRESS : 0);
	ev->tcp_flags[0] = e->tcp_flags[0];
	ev->tcp_flags[1] = e->tcp_flags[1];
	ev->icmp_type = e->icmp_type;
	ev->icmp_code = e->icmp_code;
	__builtin_memset(ev->pad, 0, sizeof(ev->pad));
}
