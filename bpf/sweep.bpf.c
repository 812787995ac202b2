/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ends connections that went quiet: the tables have no timers. Run by the agent now and then; the datapath itself treats
 * an entry past its lifetime as absent, so nothing depends on it but the report of the end. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lib/clock.h"
#include "lib/config.h"
#include "lib/datapath_maps.h"
#include "lib/events.h"
#include "lib/packet.h"

struct sweep_result { /* what the program answers, through its context */
	__u32 seen;
	__u32 ended;
};

struct sweep {
	__u32 now;
	__u32 seen;
	__u32 ended;
};

static __always_inline int sweep_entry(struct sweep *s, const struct ct_entry *e)
{
	s->seen++;
	if (s->now - e->last_seen <= e->lifetime || (__s32)(s->now - e->last_seen) < 0)
		return 0;
	s->ended++;
	return 1;
}

static __always_inline void sweep_report(const struct ct_entry *e, struct event *ev, int hi, __be16 lo_port, __be16 hi_port)
{
	event_from_entry(ev, e, EVENT_END, END_EXPIRED);
	ev->sport = hi ? hi_port : lo_port;
	ev->dport = hi ? lo_port : hi_port;
}

/* A connection that was reset has been reported as ended when it was. */
static long sweep4(void *map, const struct ct4_key *k, struct ct_entry *e, struct sweep *s)
{
	struct ct4_key key = *k;
	struct event *ev;
	int hi = e->flags & CT_ORIGINATOR_HI;

	if (!sweep_entry(s, e))
		return 0;
	if (e->state != CT_CLOSED) {
		count(COUNTER_CT_ENDED);
		ev = event_reserve();
		if (ev) {
			addr_from_ip4(ev->src, hi ? key.hi_addr : key.lo_addr);
			addr_from_ip4(ev->dst, hi ? key.lo_addr : key.hi_addr);
			ev->protocol = key.protocol;
			sweep_report(e, ev, hi, key.lo_port, key.hi_port);
			event_submit(ev);
		}
	}
	bpf_map_delete_elem(map, &key);
	return 0;
}

static long sweep6(void *map, const struct ct6_key *k, struct ct_entry *e, struct sweep *s)
{
	struct ct6_key key __attribute__((aligned(8))) = *k;
	struct event *ev;
	int hi = e->flags & CT_ORIGINATOR_HI;

	if (!sweep_entry(s, e))
		return 0;
	if (e->state != CT_CLOSED) {
		count(COUNTER_CT_ENDED);
		ev = event_reserve();
		if (ev) {
			addr_copy(ev->src, hi ? key.hi_addr : key.lo_addr);
			addr_copy(ev->dst, hi ? key.lo_addr : key.hi_addr);
			ev->protocol = key.protocol;
			sweep_report(e, ev, hi, key.lo_port, key.hi_port);
			event_submit(ev);
		}
	}
	bpf_map_delete_elem(map, &key);
	return 0;
}

SEC("syscall")
int sweep(struct sweep_result *result)
{
	struct sweep s = { .now = bpf_ktime_get_ns() >> 20 }; /* the coarse clock is not for this kind of program */

	bpf_for_each_map_elem(&ct4, sweep4, &s, 0);
	bpf_for_each_map_elem(&ct6, sweep6, &s, 0);
	result->seen = s.seen;
	result->ended = s.ended;
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
