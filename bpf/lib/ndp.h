/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answers a pod's neighbour solicitation for its gateway, fe80::1, in the program: nothing else is on its link. */
#pragma once

#include "deliver.h"
#include "drop.h"
#include "events.h"
#include "packet.h"

#define NDP_ROUTER_SOLICIT 133
#define NDP_REDIRECT 137
#define NDP_NEIGHBOUR_SOLICIT 135
#define MLD_QUERY 130
#define MLD_DONE 132
#define MLD2_REPORT 143

static __always_inline void node_mac(__u8 *mac, __u32 ifindex)
{
	mac[0] = 0x0e;
	mac[1] = 0x57;
	mac[2] = ifindex >> 24;
	mac[3] = ifindex >> 16;
	mac[4] = ifindex >> 8;
	mac[5] = ifindex;
}

struct neighbour_message {
	__u8 type, code;
	__sum16 checksum;
	__be32 flags;
	__u8 target[16];
	__u8 option, option_len;
	__u8 mac[6];
} __attribute__((packed));

struct neighbour_reply {
	__u8 eth_to[6], eth_from[6];
	__be16 eth_type;
	__be32 version;
	__be16 payload_len;
	__u8 next, hops;
	__u8 src[16], dst[16];
	struct neighbour_message m;
} __attribute__((packed));

static __always_inline int is_gateway_ip6(const __u8 *a)
{
	const __u32 *w = (const __u32 *)a;

	return w[0] == bpf_htonl(0xfe800000) && !w[1] && !w[2] && w[3] == bpf_htonl(1);
}

/* A neighbour solicitation for the gateway becomes the advertisement that answers it. */
static __noinline int answer_ndp(struct __sk_buff *skb, struct packet *p)
{
	struct {
		__u8 src[16], dst[16];
		__be32 len, next;
	} pseudo = {};
	struct neighbour_reply r = {};
	__u8 target[16] __attribute__((aligned(8)));
	__s64 sum;

	if (!p)
		return TC_ACT_SHOT;
	if (p->icmp_type != NDP_NEIGHBOUR_SOLICIT) {
		/* Router solicitations and group memberships are what every IPv6 stack says at start: no reason for a report. */
		if (p->icmp_type == NDP_ROUTER_SOLICIT || (p->icmp_type >= MLD_QUERY && p->icmp_type <= MLD_DONE) || p->icmp_type == MLD2_REPORT) {
			drop_count_packet(skb, DROP_FORBIDDEN_ICMPV6_MESSAGE);
			return TC_ACT_SHOT;
		}
		return drop(skb, p, NULL, DROP_FORBIDDEN_ICMPV6_MESSAGE);
	}
	if (bpf_skb_load_bytes(skb, p->l4_off + 8, target, 16) < 0 || !is_gateway_ip6(target) || !(p->src[0] | p->src[1])) {
		drop_count_packet(skb, DROP_FORBIDDEN_ICMPV6_MESSAGE); /* detection of duplicate addresses: silence is the answer */
		return TC_ACT_SHOT;
	}
	if (bpf_skb_load_bytes(skb, 6, r.eth_to, 6) < 0)
		return TC_ACT_SHOT;
	node_mac(r.eth_from, skb->ifindex);
	r.eth_type = bpf_htons(ETH_P_IPV6);
	r.version = bpf_htonl(0x60000000);
	r.payload_len = bpf_htons(sizeof(r.m));
	r.next = IPPROTO_ICMPV6;
	r.hops = 255;
	__builtin_memcpy(r.src, target, 16);
	__builtin_memcpy(r.dst, p->src, 16);
	r.m.type = 136;
	r.m.flags = bpf_htonl(0x60000000); /* solicited, override */
	__builtin_memcpy(r.m.target, target, 16);
	r.m.option = 2; /* target link-layer address */
	r.m.option_len = 1;
	node_mac(r.m.mac, skb->ifindex);
	__builtin_memcpy(pseudo.src, r.src, 16);
	__builtin_memcpy(pseudo.dst, r.dst, 16);
	pseudo.len = bpf_htonl(sizeof(r.m));
	pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&r.m, sizeof(r.m), sum);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	r.m.checksum = ~sum;
	if (bpf_skb_change_tail(skb, sizeof(r), 0) < 0 || bpf_skb_store_bytes(skb, 0, &r, sizeof(r), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

static __always_inline int is_ndp(const struct packet *p)
{
	return p->ipv6 && p->protocol == IPPROTO_ICMPV6 &&
	       ((p->icmp_type >= NDP_ROUTER_SOLICIT && p->icmp_type <= NDP_REDIRECT) || (p->icmp_type >= MLD_QUERY && p->icmp_type <= MLD_DONE) ||
		p->icmp_type == MLD2_REPORT);
}
