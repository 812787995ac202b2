/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ends connections that went quiet: the tables have no timers. Run by the agent now and then; the datapath itself treats
 * an entry past its lifetime as absent, so nothing depends on it but the report of the end. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define IN_SYSTEM_CALL

#include "lib/clock.h"
#include "lib/config.h"
#include "lib/datapath_maps.h"
#include "lib/events.h"
#include "lib/owners.h"
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

struct ends { /* of a connection, in the order of its key */
	__u8 addr[2][16] __attribute__((aligned(8)));
	__be16 port[2];
	__u8 protocol;
};

static __always_inline int is_over(struct sweep *s, const struct ct_entry *e)
{
	s->seen++;
	if (s->now - e->last_seen <= e->lifetime || (__s32)(s->now - e->last_seen) < 0)
		return 0;
	s->ended++;
	return 1;
}

/* A connection that was reset has been reported as ended when it was. */
static __always_inline void report_end(const struct ct_entry *e, const struct ends *ends)
{
	int originator = e->flags & CT_ORIGINATOR_HI;
	struct socket_key k __attribute__((aligned(8))) = {};
	struct ipcache_key address;
	struct event *ev;

	if (e->state == CT_CLOSED)
		return;
	count(COUNTER_CT_ENDED);
	ev = event_reserve();
	if (!ev)
		return;
	event_from_entry(ev, e, EVENT_END, END_EXPIRED);
	addr_copy(ev->src, originator ? ends->addr[1] : ends->addr[0]);
	addr_copy(ev->dst, originator ? ends->addr[0] : ends->addr[1]);
	ev->sport = originator ? ends->port[1] : ends->port[0];
	ev->dport = originator ? ends->port[0] : ends->port[1];
	ev->protocol = ends->protocol;
	name_owners(ev, &k, &address);
	event_submit(ev);
}

static long sweep4(void *map, const struct ct4_key *k, struct ct_entry *e, struct sweep *s)
{
	struct ct4_key key = *k;
	struct ends ends = { .port = { key.lo_port, key.hi_port }, .protocol = key.protocol };

	if (!is_over(s, e))
		return 0;
	addr_from_ip4(ends.addr[0], key.lo_addr);
	addr_from_ip4(ends.addr[1], key.hi_addr);
	report_end(e, &ends);
	bpf_map_delete_elem(map, &key);
	return 0;
}

static long sweep6(void *map, const struct ct6_key *k, struct ct_entry *e, struct sweep *s)
{
	struct ct6_key key __attribute__((aligned(8))) = *k;
	struct ends ends = { .port = { key.lo_port, key.hi_port }, .protocol = key.protocol };

	if (!is_over(s, e))
		return 0;
	addr_copy(ends.addr[0], key.lo_addr);
	addr_copy(ends.addr[1], key.hi_addr);
	report_end(e, &ends);
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
