/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answers a pod's ARP request for its gateway, 169.254.1.1, in the program: nothing else is on its link. */
#pragma once

#include "arp_message.h"
#include "ndp.h"

#define GATEWAY_IP4 bpf_htonl(0xa9fe0101)

static __noinline int answer_arp(struct __sk_buff *skb)
{
	struct arp_message m;
	struct {
		__u8 to[6], from[6];
	} eth;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &m, sizeof(m)) < 0 || m.operation != bpf_htons(1) || m.protocol != bpf_htons(ETH_P_IP) ||
	    m.hardware_len != 6 || m.protocol_len != 4 || m.target_ip != GATEWAY_IP4)
		return TC_ACT_SHOT;
	__builtin_memcpy(eth.to, m.sender_mac, 6);
	node_mac(eth.from, skb->ifindex);
	m.operation = bpf_htons(2);
	__builtin_memcpy(m.target_mac, m.sender_mac, 6);
	m.target_ip = m.sender_ip;
	__builtin_memcpy(m.sender_mac, eth.from, 6);
	m.sender_ip = GATEWAY_IP4;
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) < 0 || bpf_skb_store_bytes(skb, ETH_HLEN, &m, sizeof(m), 0) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(skb->ifindex, 0);
}
