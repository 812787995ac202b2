/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answers for addresses of services that no interface has: this node stands for them on the local network while the agent
 * says so. An agent that is gone for long stops saying so, and another node stands for them. */
#pragma once

#include "arp_message.h"
#include "ndp.h"

struct announced_key {
	__u8 addr[16];
	__u32 ifindex;
};

struct announced {
	__u64 until_ns; /* on the monotonic clock */
	__u8 mac[6];
	__u8 pad[2];
};

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct announced_key);
	__type(value, struct announced);
} announced SEC(".maps");

static __always_inline const struct announced *announced_here(const struct announced_key *key)
{
	const struct announced *a = bpf_map_lookup_elem(&announced, key);

	return a && a->until_ns > bpf_ktime_get_ns() ? a : NULL;
}

/* What is not asked of us is the node's own. */
static __noinline int announce_arp(struct __sk_buff *skb)
{
	const struct announced *a;
	struct announced_key key = {};
	struct arp_message m;
	struct {
		__u8 to[6], from[6];
	} eth;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &m, sizeof(m)) < 0 || m.operation != bpf_htons(1) || m.protocol != bpf_htons(ETH_P_IP) ||
	    m.hardware_len != 6 || m.protocol_len != 4 || m.sender_ip == m.target_ip)
		return TC_ACT_OK;
	key.addr[10] = key.addr[11] = 0xff;
	__builtin_memcpy(key.addr + 12, &m.target_ip, 4);
	key.ifindex = skb->ifindex;
	a = announced_here(&key);
	if (!a)
		return TC_ACT_OK;
	__builtin_memcpy(eth.to, m.sender_mac, 6);
	__builtin_memcpy(eth.from, a->mac, 6);
	m.operation = bpf_htons(2);
	__builtin_memcpy(m.target_mac, m.sender_mac, 6);
	__builtin_memcpy(m.sender_mac, a->mac, 6);
	m.target_ip = m.sender_ip;
	__builtin_memcpy(&m.sender_ip, key.addr + 12, 4);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0 || bpf_skb_store_bytes(skb, ETH_HLEN, &m, sizeof(m), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}

struct solicitation_start {
	__u8 next, hops;
	__u8 src[16], dst[16];
	__u8 type, code;
} __attribute__((packed));

/* Whoever asks with the unspecified address wants to take the address: all hear the answer. */
static __noinline int announce_ndp(struct __sk_buff *skb)
{
	struct {
		__u8 src[16], dst[16];
		__be32 len, next;
	} pseudo = {};
	const struct announced *a;
	struct announced_key key = {};
	struct neighbour_reply r = {};
	struct solicitation_start s;
	__u32 asker[4];
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + 6, &s, sizeof(s)) < 0 || s.next != IPPROTO_ICMPV6 || s.type != NDP_NEIGHBOUR_SOLICIT ||
	    s.code || s.hops != 255 || bpf_skb_load_bytes(skb, ETH_HLEN + 48, key.addr, 16) < 0)
		return TC_ACT_OK;
	key.ifindex = skb->ifindex;
	a = announced_here(&key);
	if (!a)
		return TC_ACT_OK;
	if (bpf_skb_load_bytes(skb, 6, r.eth_to, 6) < 0)
		return TC_ACT_SHOT;
	__builtin_memcpy(r.eth_from, a->mac, 6);
	r.eth_type = bpf_htons(ETH_P_IPV6);
	r.version = bpf_htonl(0x60000000);
	r.payload_len = bpf_htons(sizeof(r.m));
	r.next = IPPROTO_ICMPV6;
	r.hops = 255;
	__builtin_memcpy(r.src, key.addr, 16);
	__builtin_memcpy(r.dst, s.src, 16);
	r.m.type = 136;
	r.m.flags = bpf_htonl(0x60000000); /* solicited, override */
	__builtin_memcpy(asker, s.src, 16);
	if (!(asker[0] | asker[1] | asker[2] | asker[3])) {
		r.dst[0] = 0xff;
		r.dst[1] = 0x02;
		r.dst[15] = 1;
		r.eth_to[0] = r.eth_to[1] = 0x33;
		r.eth_to[2] = r.eth_to[3] = r.eth_to[4] = 0;
		r.eth_to[5] = 1;
		r.m.flags = bpf_htonl(0x20000000);
	}
	__builtin_memcpy(r.m.target, key.addr, 16);
	r.m.option = 2; /* target link-layer address */
	r.m.option_len = 1;
	__builtin_memcpy(r.m.mac, a->mac, 6);
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

/* Cheap on every packet: two bytes that are in reach. */
static __always_inline int may_be_solicitation(struct __sk_buff *skb)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end;

	if (data + 55 > end)
		return 1;
	return data[20] == IPPROTO_ICMPV6 && data[54] == NDP_NEIGHBOUR_SOLICIT;
}
