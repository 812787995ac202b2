/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sends a judged packet on: into a pod of this node, to the node itself, or to the next hop, past the node's stack.
 * The host side of veth I has MAC 0e:57:I, the pod's side 0a:57:I, so no table of MACs is needed. */
#pragma once

#include <linux/pkt_cls.h>

#include "clock.h"
#include "config.h"
#include "datapath_maps.h"
#include "drop_reasons.h"
#include "packet.h"

#define AF_INET 2
#define AF_INET6 10

#define MAC_POD 0x570a	/* 0a:57 as a little-endian half word */
#define MAC_NODE 0x570e /* 0e:57 */

struct mac_pair {
	__u16 to;
	__u32 to_index;
	__u16 from;
	__u32 from_index;
} __attribute__((packed));

static __always_inline int write_pod_macs(struct __sk_buff *skb, __u32 ifindex)
{
	struct mac_pair m = {
		.to = MAC_POD,
		.to_index = bpf_htonl(ifindex),
		.from = MAC_NODE,
		.from_index = bpf_htonl(ifindex),
	};

	return bpf_skb_store_bytes(skb, 0, &m, sizeof(m), 0);
}

/* One hop less. 0, or the reason to drop. */
static __always_inline int take_hop(struct __sk_buff *skb, int ipv6)
{
	if (ipv6) {
		__u8 hops;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 7, &hops, 1) < 0)
			return DROP_INVALID_PACKET_DROPPED;
		if (hops <= 1)
			return DROP_TTL_EXCEEDED;
		hops--;
		return bpf_skb_store_bytes(skb, ETH_HLEN + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM) < 0 ? DROP_INVALID_PACKET_DROPPED : 0;
	} else {
		struct {
			__u8 ttl, protocol;
			__u16 check;
		} h;
		__u32 sum;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 8, &h, 4) < 0)
			return DROP_INVALID_PACKET_DROPPED;
		if (h.ttl <= 1)
			return DROP_TTL_EXCEEDED;
		h.ttl--;
		sum = (__u32)h.check + bpf_htons(0x0100); /* RFC 1624, for a word that lost 0x0100 */
		h.check = sum + (sum >= 0xffff);
		return bpf_skb_store_bytes(skb, ETH_HLEN + 8, &h, 4, 0) < 0 ? DROP_INVALID_PACKET_DROPPED : 0;
	}
}

/* Routes are asked again after so many ticks, about a second, whatever the epochs say. */
#define HOP_FRESH 954

static __always_inline int take_way(struct ct_entry *e, int d, __u32 ifindex)
{
	e->out_ifindex[d] = ifindex;
	if (!e->in_ifindex[d ^ 1]) /* replies are expected where the packets leave; otherwise they are judged once more */
		e->in_ifindex[d ^ 1] = ifindex;
	e->out_kind[d] = OUT_NEIGHBOUR;
	return 0;
}

/* Finds the way to dst by the node's routes, or as another connection between the two found it: asking costs more than
 * all the rest of a new connection. 0, or the reason to drop. */
static __noinline int resolve(struct __sk_buff *skb, struct ct_entry *e, const __u8 *src, const __u8 *dst, int d)
{
	struct bpf_fib_lookup fib __attribute__((aligned(8))) = {};
	__u32 index, epoch, now = clock_ticks();
	struct hop *h;
	long rc;

	if (!e || !src || !dst)
		return DROP_FIB_LOOKUP_FAILED;
	d &= 1;
	index = (e->epoch_slot[d] ^ e->epoch_slot[d ^ 1] << 1) & (HOPS - 1);
	epoch = e->epoch[d ^ 1];
	h = bpf_map_lookup_elem(&hops, &index);
	if (!h)
		return DROP_FIB_LOOKUP_FAILED;
	if (h->ifindex && h->epoch == epoch && now - h->found <= HOP_FRESH && addr_equal(h->dst, dst) && addr_equal(h->src, src)) {
		addr_copy(e->next_hop[d], h->next_hop);
		return take_way(e, d, h->ifindex);
	}
	fib.ifindex = skb->ifindex;
	if (e->flags & CT_IPV6) {
		fib.family = AF_INET6;
		addr_copy((__u8 *)fib.ipv6_src, src);
		addr_copy((__u8 *)fib.ipv6_dst, dst);
	} else {
		fib.family = AF_INET;
		fib.ipv4_src = *(const __u32 *)(src + 12);
		fib.ipv4_dst = *(const __u32 *)(dst + 12);
	}
	rc = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (rc != BPF_FIB_LKUP_RET_SUCCESS && rc != BPF_FIB_LKUP_RET_NO_NEIGH)
		return DROP_FIB_LOOKUP_FAILED;
	if (fib.family == AF_INET6)
		addr_copy(e->next_hop[d], (__u8 *)fib.ipv6_dst);
	else
		addr_from_ip4(e->next_hop[d], fib.ipv4_dst);
	if (fib.ifindex == host_ifindex) /* this node's block, but no pod of it */
		return DROP_STALE_OR_UNROUTABLE_IP;
	h->ifindex = 0;
	addr_copy(h->src, src);
	addr_copy(h->dst, dst);
	addr_copy(h->next_hop, e->next_hop[d]);
	h->epoch = epoch;
	h->found = now;
	h->ifindex = fib.ifindex;
	return take_way(e, d, fib.ifindex);
}

/* Left in skb->tc_index by what goes on past the stack: the hook of devices that looks at what the node sends need not read
 * it. */
#define TC_INDEX_SENT_ON 0x5765

static __always_inline void note_sent_on(struct __sk_buff *skb)
{
	if (host_firewall)
		skb->tc_index = TC_INDEX_SENT_ON;
}

/* Sends the packet the entry's way. Returns the hook's verdict, or minus the reason to drop. */
static __always_inline int forward(struct __sk_buff *skb, const struct ct_entry *e, int d)
{
	__u32 ifindex;
	int reason;

	d &= 1;
	ifindex = e->out_ifindex[d];
	switch (e->out_kind[d]) {
	case OUT_POD:
		if (write_pod_macs(skb, ifindex) < 0)
			return -DROP_INVALID_PACKET_DROPPED;
		return bpf_redirect_peer(ifindex, 0);
	case OUT_NEIGHBOUR: {
		struct bpf_redir_neigh n = {};
		const __u32 *hop = (const __u32 *)e->next_hop[d];

		reason = take_hop(skb, e->flags & CT_IPV6);
		if (reason)
			return -reason;
		note_sent_on(skb);
		if (!(e->flags & CT_IPV6) && hop[2] == bpf_htonl(0xffff)) {
			n.nh_family = AF_INET;
			n.ipv4_nh = hop[3];
		} else { /* IPv4 may have an IPv6 gateway (RFC 5549) */
			n.nh_family = AF_INET6;
			__builtin_memcpy(n.ipv6_nh, hop, 16);
		}
		return bpf_redirect_neigh(ifindex, &n, sizeof(n), 0);
	}
	case OUT_THIS_NODE:
		if (write_pod_macs(skb, net_ifindex) < 0)
			return -DROP_INVALID_PACKET_DROPPED;
		return bpf_redirect(host_ifindex, BPF_F_INGRESS);
	default: /* the stack has no case of its own: with four, pods' packets were some nanoseconds slower */
		return e->out_kind[d] == OUT_STACK ? TC_ACT_OK : -DROP_FIB_LOOKUP_FAILED;
	}
}
