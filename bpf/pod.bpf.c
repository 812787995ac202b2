/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What leaves a pod: tcx ingress of the host side of its veth, and the only hook a pod has. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/arp.h"
#include "lib/judge.h"

/* The pod's MAC follows from the device, so no lookup is needed to see a forged one. */
static __always_inline int mac_is_the_pods(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;

	if (data + ETH_HLEN > (void *)(long)skb->data_end)
		return 0;
	return *(__u16 *)(data + 6) == MAC_POD && *(__u32 *)(data + 8) == bpf_htonl(skb->ifindex);
}

static __noinline int handle_ip4(struct __sk_buff *skb)
{
	return handle(skb, 0, HOOK_POD);
}

static __noinline int handle_ip6(struct __sk_buff *skb)
{
	return handle(skb, 1, HOOK_POD);
}

static __noinline int refuse(struct __sk_buff *skb, int reason)
{
	struct drop_context c = {};
	struct packet p = {};

	if (skb->protocol == bpf_htons(ETH_P_IP))
		packet_read_ip4(skb, &p);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		packet_read_ip6(skb, &p);
	return drop(skb, &p, &c, reason);
}

SEC("tc")
int pod(struct __sk_buff *skb)
{
	if (!mac_is_the_pods(skb))
		return refuse(skb, DROP_INVALID_SOURCE_MAC);
	if (skb->vlan_present) /* the tag would go out with the packet, to a network that no policy speaks of */
		return refuse(skb, DROP_UNSUPPORTED_L3_PROTOCOL);
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return handle_ip4(skb);
	case bpf_htons(ETH_P_IPV6):
		return handle_ip6(skb);
	case bpf_htons(ETH_P_ARP):
		return answer_arp(skb);
	default:
		return refuse(skb, DROP_UNSUPPORTED_L3_PROTOCOL);
	}
}

char _license[] SEC("license") = "Dual BSD/GPL";
